_base_ = [
    '../_base_/models/upernet_stvit-small.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/default_runtime_seg.py',
]

# The recipe of Swin in MMSegmentation, to which the paper refers.
max_iters, warmup_iters = 160000, 1500
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.00006, betas=(0.9, 0.999), weight_decay=0.01, fused=True),
    # norm_decay_mult is by class: a 'norm' key would miss BatchNorms of other names. Layer scales: ours.
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'gamma': dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=warmup_iters),
    dict(type='PolyLR', eta_min=0.0, power=1.0, begin=warmup_iters, end=max_iters, by_epoch=False),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)

# Two images per GPU are too few for BatchNorm: synchronized when distributed, as in the heads of Swin's recipe.
sync_bn = 'torch'
