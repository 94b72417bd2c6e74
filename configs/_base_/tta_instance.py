# tools/test.py --tta: three scales, each also flipped. Ours; the paper reports no test-time augmentation of detectors.
tta_model = dict(type='mmstvit.InstanceSegTTAModel')
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=scale, keep_ratio=True) for scale in ((1066, 640), (1333, 800), (1600, 960))],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackDetInputs')],
        ],
    ),
]
