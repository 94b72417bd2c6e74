_base_ = './mask-rcnn_stvit-small_fpn.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint='checkpoints/stvit-base-224_mm.pth')),
    neck=dict(in_channels=[96, 192, 384, 512]),
)
