# The recipe of Swin in MMDetection, to which the paper refers: AdamW, 12 epochs, batch 16.
max_epochs = 12
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05, fused=True),
    # norm_decay_mult is by class: a 'norm' key would miss BatchNorms of other names. Layer scales: ours.
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'gamma': dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=max_epochs, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)

# Two images per GPU are too few for BatchNorm: synchronized when distributed. Ours; the paper does not say.
sync_bn = 'torch'
