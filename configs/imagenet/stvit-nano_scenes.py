# A classifier small enough for two CPU cores, trained from scratch on the objects of the bundled scenes.
_base_ = [
    '../_base_/models/stvit-small.py',
    '../_base_/datasets/scenes_classification.py',
    '../_base_/schedules/scenes.py',
    '../_base_/default_runtime_cls.py',
]

model = dict(
    backbone=dict(arch='nano'),
    neck=dict(in_channels=192, out_channels=256),
    head=dict(num_classes=5, in_channels=256, topk=(1,)),
    train_cfg=None,
)

max_epochs = 8
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        eta_min=1e-5,
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]

default_hooks = dict(logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=1))
vis_backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
visualizer = dict(vis_backends=vis_backends)
randomness = dict(seed=0)
