# STViT in detectors and segmentors. They start from the authors' ImageNet weights, as they are:
# docs/checkpoints.md, "Download the weights".
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
        init_cfg=dict(type='Pretrained', checkpoint='checkpoints/stvit-small-224.pth'),
    ),
    base=dict(arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint='checkpoints/stvit-base-224.pth')),
    large=dict(
        arch='large',
        drop_path_rate=0.5,  # the paper gives none for large: ours, between 0.3 of base and 0.6 on ImageNet
        init_cfg=dict(checkpoint='checkpoints/stvit-large-224.pth'),
    ),
)
