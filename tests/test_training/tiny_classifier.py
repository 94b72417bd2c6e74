# A very small classifier with everything that is random: augmentation, drop path, dropout, shuffling.
_base_ = '../../configs/imagenet/stvit-nano_scenes.py'

arch = dict(_delete_=True, channels=(8, 12, 16, 24), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 3))
model = dict(
    backbone=dict(arch=arch, drop_rate=0.1, drop_path_rate=0.3),
    neck=dict(in_channels=24, out_channels=32),
    head=dict(in_channels=32),
)
train_dataloader = dict(batch_size=8)
val_dataloader = dict(batch_size=8)
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=3)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=3, convert_to_iter_based=True)]
default_hooks = dict(logger=dict(interval=1))
visualizer = dict(vis_backends=[dict(type='LocalVisBackend')])
randomness = dict(seed=0, deterministic=True)
