# A detector small enough for two CPU cores, trained from scratch on the bundled scenes.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/backbones.py',
    '../_base_/datasets/scenes_instance.py',
    '../_base_/schedules/scenes.py',
    '../_base_/default_runtime_det.py',
]

num_classes = 5
# mmcv's RoIAlign and NMS use one CPU thread: narrow features, one sample per bin and few proposals keep them short.
width = 48
roi_layer = dict(sampling_ratio=1)
# Training from scratch needs normalization in neck and heads; GroupNorm does not depend on the batch size.
norm_cfg = dict(type='GN', num_groups=16, requires_grad=True)

model = dict(
    backbone=dict(_delete_=True, type='mmstvit.STViT', arch='nano'),
    neck=dict(in_channels=_base_.channels.nano, out_channels=width, norm_cfg=norm_cfg),
    rpn_head=dict(in_channels=width, feat_channels=width),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=width, roi_layer=roi_layer, finest_scale=28),
        bbox_head=dict(
            type='ConvFCBBoxHead',
            num_shared_convs=2,
            num_shared_fcs=1,
            conv_out_channels=width,
            in_channels=width,
            fc_out_channels=256,
            num_classes=num_classes,
            reg_class_agnostic=True,
            norm_cfg=norm_cfg,
        ),
        mask_roi_extractor=dict(out_channels=width, roi_layer=roi_layer, finest_scale=28),
        mask_head=dict(
            num_convs=3,
            in_channels=width,
            conv_out_channels=width,
            num_classes=num_classes,
            class_agnostic=True,
            norm_cfg=norm_cfg,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=200, max_per_img=100),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=200, max_per_img=50),
        rcnn=dict(max_per_img=20),
    ),
)

max_epochs = 3
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=3)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

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
