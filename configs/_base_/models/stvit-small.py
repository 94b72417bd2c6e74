# The classifier of the official implementation: backbone, convolutional projection, linear head.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='mmstvit.STViT', arch='small', drop_path_rate=0.1),
    neck=dict(type='mmstvit.STViTNeck', in_channels=512),
    head=dict(
        type='LinearClsHead',
        num_classes=1000,
        in_channels=1024,
        # Only the head: the other layers of the official implementation keep the initialization of PyTorch.
        init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02, bias=0.0),
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original'),
        cal_acc=False,
    ),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
