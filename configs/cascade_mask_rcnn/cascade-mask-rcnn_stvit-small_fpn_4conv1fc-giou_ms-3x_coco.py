_base_ = [
    'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/coco_3x.py',
    '../_base_/tta_instance.py',
    '../_base_/default_runtime_det.py',
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
    # The heads of Swin's Cascade Mask R-CNN: four convolutions and one linear layer, GIoU loss on decoded boxes. The
    # paper does not spell them out; its 837 GFLOPs are those of these heads.
    roi_head=dict(
        bbox_head=[
            dict(
                type='ConvFCBBoxHead',
                num_shared_convs=4,
                num_shared_fcs=1,
                in_channels=256,
                conv_out_channels=256,
                fc_out_channels=1024,
                roi_feat_size=7,
                num_classes=80,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0, 0.0, 0.0, 0.0], target_stds=target_stds),
                reg_class_agnostic=False,
                reg_decoded_bbox=True,
                norm_cfg=dict(type='BN', requires_grad=True),
                loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
                loss_bbox=dict(type='GIoULoss', loss_weight=10.0),
            )
            for target_stds in ([0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067])
        ]
    ),
)
