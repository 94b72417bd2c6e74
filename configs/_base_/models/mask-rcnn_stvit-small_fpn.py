_base_ = 'mmdet::_base_/models/mask-rcnn_r50_fpn.py'

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
