# Cascade Mask R-CNN small enough for two CPU cores, trained from scratch on the bundled scenes.
_base_ = ['../mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py', '../_base_/models/cascade_heads.py']

model = dict(
    type='CascadeRCNN',
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_head=[
            dict(
                head,
                num_shared_convs=2,
                in_channels=_base_.width,
                conv_out_channels=_base_.width,
                fc_out_channels=256,
                num_classes=_base_.num_classes,
                reg_class_agnostic=True,
                norm_cfg=_base_.norm_cfg,
            )
            for head in _base_.cascade_heads
        ],
    ),
    train_cfg=dict(
        rcnn=[
            dict(
                assigner=dict(
                    type='MaxIoUAssigner', pos_iou_thr=iou, neg_iou_thr=iou, min_pos_iou=iou, match_low_quality=False
                ),
                sampler=dict(type='RandomSampler', num=32, pos_fraction=0.25, add_gt_as_proposals=True),
                mask_size=28,
                pos_weight=-1,
                debug=False,
            )
            for iou in (0.5, 0.6, 0.7)
        ]
    ),
)

# An iteration takes 1.5 times as long as one of Mask R-CNN.
max_epochs = 2
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_epochs, T_max=max_epochs),
]
