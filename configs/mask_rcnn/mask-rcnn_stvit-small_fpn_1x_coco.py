_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_1x.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='mmstvit.STViT',
        arch='small',
        drop_path_rate=0.1,
        # The release's ImageNet weights, converted: tools/model_converters/stvit_to_mm.py
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/stvit-small-224_mm.pth', prefix='backbone.'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

# Two images per GPU are too few for BatchNorm: synchronised when distributed. The paper does not say; ours.
sync_bn = 'torch'

# The recipe of Swin in MMDetection, to which the paper refers.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    # By class: a 'norm' key would miss the BatchNorms of other names.
    paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'gamma': dict(decay_mult=0.0)}),
    optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05),
)
