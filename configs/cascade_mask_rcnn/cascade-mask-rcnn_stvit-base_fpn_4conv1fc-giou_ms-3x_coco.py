_base_ = './cascade-mask-rcnn_stvit-small_fpn_4conv1fc-giou_ms-3x_coco.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint='checkpoints/stvit-base-224_mm.pth')),
    neck=dict(in_channels=[96, 192, 384, 512]),
)
