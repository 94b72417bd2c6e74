_base_ = './faster-rcnn_stvit-small_fpn_1x_coco.py'

model = dict(backbone=_base_.backbones.base, neck=dict(in_channels=_base_.channels.base))
