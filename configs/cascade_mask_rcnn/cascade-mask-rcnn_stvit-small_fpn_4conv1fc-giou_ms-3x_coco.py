_base_ = [
    'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
    '../_base_/backbones.py',
    '../_base_/models/cascade_heads.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/coco_3x.py',
    '../_base_/tta_instance.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.backbones.small),
    neck=dict(in_channels=_base_.channels.small),
    # The heads of Cascade Mask R-CNN with Swin: four convolutions and one linear layer. The paper does not describe
    # its heads; these have its 837 GFLOPs.
    roi_head=dict(
        bbox_head=[
            dict(
                head,
                num_shared_convs=4,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                num_classes=80,
                reg_class_agnostic=False,
                norm_cfg=dict(type='BN', requires_grad=True),
            )
            for head in _base_.cascade_heads
        ]
    ),
)
