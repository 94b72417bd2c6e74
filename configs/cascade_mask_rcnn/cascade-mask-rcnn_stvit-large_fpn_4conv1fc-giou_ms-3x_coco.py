_base_ = './cascade-mask-rcnn_stvit-small_fpn_4conv1fc-giou_ms-3x_coco.py'

model = dict(backbone=_base_.backbones.large, neck=dict(in_channels=_base_.channels.large))
