# STViT in detectors and segmentors. The weights are the official ImageNet weights, converted with
# tools/model_converters/stvit_to_mm.py.
channels = dict(
    nano=[32, 64, 128, 192],
    small=[64, 128, 320, 512],
    base=[96, 192, 384, 512],
    large=[96, 192, 448, 640],
)
backbones = dict(
    small=dict(
        type='mmstvit.STViT',
        arch='small',
        drop_path_rate=0.1,  # the paper gives none for small on ADE20K: ours, as on COCO
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/stvit-small-224_mm.pth', prefix='backbone.'),
    ),
    base=dict(arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint='checkpoints/stvit-base-224_mm.pth')),
    large=dict(
        arch='large',
        drop_path_rate=0.5,  # the paper gives none for large: ours, between 0.3 of base and 0.6 on ImageNet
        init_cfg=dict(checkpoint='checkpoints/stvit-large-224_mm.pth'),
    ),
)
