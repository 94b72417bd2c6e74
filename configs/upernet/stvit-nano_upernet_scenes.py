# A segmentor small enough for two CPU cores, trained from scratch on the bundled scenes.
_base_ = [
    '../_base_/models/upernet_stvit-small.py',
    '../_base_/datasets/scenes_semantic.py',
    '../_base_/default_runtime_seg.py',
]

# Narrow heads: a three by three convolution over the concatenated levels takes most of a step otherwise.
width = 48
num_classes = 6
# Nine pixels of ten are background; unweighted, they drown the classes.
class_weight = [0.25, 1.0, 1.0, 1.0, 1.0, 1.0]
norm_cfg = dict(type='GN', num_groups=16, requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(192, 192)),
    backbone=dict(arch='nano', drop_path_rate=0.0, init_cfg=None),
    decode_head=dict(
        in_channels=[32, 64, 128, 192],
        channels=width,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=class_weight),
    ),
    auxiliary_head=dict(
        in_channels=128,
        channels=width,
        num_classes=num_classes,
        norm_cfg=norm_cfg,
        loss_decode=dict(class_weight=class_weight),
    ),
)

max_iters = 1200
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.002, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, end=max_iters, T_max=max_iters, by_epoch=False),
]

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(interval=max_iters, max_keep_ckpts=1))
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(vis_backends=vis_backends)
randomness = dict(seed=0)
