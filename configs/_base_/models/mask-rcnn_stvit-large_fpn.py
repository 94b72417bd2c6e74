_base_ = './mask-rcnn_stvit-small_fpn.py'

model = dict(
    backbone=dict(
        arch='large',
        drop_path_rate=0.5,  # the paper gives none for large: ours, between base's 0.3 and ImageNet's 0.6
        init_cfg=dict(checkpoint='checkpoints/stvit-large-224_mm.pth'),
    ),
    neck=dict(in_channels=[96, 192, 448, 640]),
)
