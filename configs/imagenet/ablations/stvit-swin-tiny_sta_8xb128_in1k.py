# The blocks, channels and heads of Swin-T.
_base_ = './stvit-small_sta_8xb128_in1k.py'

model = dict(
    backbone=dict(
        arch=dict(_delete_=True, channels=[96, 192, 384, 768], depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24]),
    ),
    neck=dict(in_channels=768),
    head=dict(in_channels=768),
)
