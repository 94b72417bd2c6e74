"""The text of a new config."""

from collections.abc import Iterator

from mmstvit.drawing import class_colors

from .code import Code, assign, literal
from .models import Model
from .options import NEXT_TO_CONFIG, Data
from .plan import Plan

# Is nano -> objects per image, and proposals, of the base configs.
_LIMITS = {True: (20, 50), False: (100, 1000)}
_DATASETS = {'instances': 'CocoDataset', 'segments': 'BaseSegDataset', 'classes': 'CustomDataset'}
_INSTANCE_PIPELINES = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', {annotations}),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', {annotations}),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
"""
_SEGMENT_PIPELINES = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    # After Resize: predictions are evaluated at the original size of the image.
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(scale[0] * ratio), int(scale[1] * ratio)), keep_ratio=True)
                for ratio in (0.75, 1.0, 1.25)
            ],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0, direction='horizontal')],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
"""
_CLASS_PIPELINES = """
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=side, crop_ratio_range=(0.4, 1.0), backend='pillow', interpolation='bicubic'),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='ColorJitter', brightness=0.4, contrast=0.4, saturation=0.4),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=side * 8 // 7, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=side),
    dict(type='PackInputs'),
]
"""


def write_config(data: Data, model: Model, plan: Plan, beside: str) -> str:
    """Write the text of a config.

    Args:
        data: The data.
        model: The model.
        plan: The numbers.
        beside: What the names of files beside the config begin with.
    """
    blocks = [
        _write_head(data, model),
        *_write_data(data, model),
        _write_pipelines(data, model, plan),
        *_write_loaders(data, model, plan, beside),
        *_write_model(data, model, plan),
        *_write_schedule(data, model, plan),
    ]
    return '\n\n'.join(block.strip('\n') for block in blocks) + '\n'


def _write_head(data: Data, model: Model) -> str:
    return (
        '# Written by tools/new_config.py\n'
        f'# {model.name}: what is not here is inherited.\n'
        f"_base_ = __import__('mmstvit') and 'mmstvit::{model.base}'"
    )


def _write_data(data: Data, model: Model) -> Iterator[str]:
    classes = list(data.classes) if data.task == 'classes' else tuple(data.classes)
    lines = [
        assign('data_root', f'{data.root.as_posix().rstrip("/")}/'),
        assign('classes', classes, data.comment),
    ]
    if data.task != 'classes':
        lines += [
            assign('palette', data.palette or class_colors(data.classes)),
            'metainfo = dict(classes=classes, palette=palette)',
        ]
    lines.append(f'num_classes = {len(data.classes)}')
    yield '\n'.join(lines)


def _write_pipelines(data: Data, model: Model, plan: Plan) -> str:
    median = '×'.join(map(str, plan.median_size))
    if data.task == 'classes':
        return f'# The median image is {median}.\nside = {plan.scale[0]}\n{_CLASS_PIPELINES.strip()}'
    head = f'# Images are fitted into this size; the median image is {median}.\nscale = {plan.scale}'
    if data.task == 'segments':
        side = min(plan.scale) // 32 * 32
        return f'{head}\ncrop_size = {(side, side)}\n{_SEGMENT_PIPELINES.strip()}'
    boxes = 'with_bbox=True' if model.family == 'faster-rcnn' else 'with_bbox=True, with_mask=True'
    return f'{head}\n{_INSTANCE_PIPELINES.strip().format(annotations=boxes)}'


def _write_loaders(data: Data, model: Model, plan: Plan, beside: str) -> Iterator[str]:
    yield f'batch_size = {plan.batch_size}\nnum_workers = {plan.num_workers}'
    for split in data.datasets:
        loader = dict(
            batch_size=Code('batch_size'), num_workers=Code('num_workers'), persistent_workers=Code('num_workers > 0')
        )
        if data.task == 'segments' and split != 'train' and not plan.same_size:
            loader['batch_size'] = 1
        if data.task == 'classes' and split == 'train':
            loader |= dict(drop_last=False, sampler=dict(_delete_=True, type='DefaultSampler', shuffle=True))
        loader['dataset'] = _dataset(data, split, beside)
        comment = '1 image per batch: the images have several sizes.' if loader['batch_size'] == 1 else ''
        if split == 'train' and data.empty:
            comment = f'filter_empty_gt leaves out {data.empty} images without objects; False trains on them too.'
        yield assign(f'{split}_dataloader', loader, comment)
    evaluator = assign('val_evaluator', _evaluator(data, model, 'val', beside))
    if 'test' in data.datasets:
        yield evaluator
        yield assign('test_evaluator', _evaluator(data, model, 'test', beside))
    else:
        yield f'test_dataloader = val_dataloader\n{evaluator}\ntest_evaluator = val_evaluator'


def _dataset(data: Data, split: str, beside: str) -> dict:
    dataset = dict(_delete_=True, type=_DATASETS[data.task], data_root=Code('data_root'))
    key = 'classes' if data.task == 'classes' else 'metainfo'
    dataset |= {key: Code(key)} | _locate(data.datasets[split], beside)
    if data.task == 'instances':
        dataset |= dict(filter_cfg=dict(filter_empty_gt=True)) if split == 'train' else dict(test_mode=True)
    return dataset | dict(pipeline=Code(f'{"train" if split == "train" else "test"}_pipeline'))


def _locate(part: dict, beside: str) -> dict:
    """Replace ``NEXT_TO_CONFIG`` in the paths of a dataset."""
    return {
        key: value.replace(NEXT_TO_CONFIG, beside)
        if isinstance(value, str)
        else _locate(value, beside)
        if isinstance(value, dict)
        else value
        for key, value in part.items()
    }


def _evaluator(data: Data, model: Model, split: str, beside: str) -> dict:
    if data.task == 'segments':
        return dict(_delete_=True, type='IoUMetric', iou_metrics=['mIoU'])
    if data.task == 'classes':
        return dict(_delete_=True, type='Accuracy', topk=(1, 5) if len(data.classes) > 5 else (1,))
    file = _locate(data.datasets[split], beside)['ann_file']
    path = file if file.startswith('/') or file[1:3] == ':/' else Code(f'data_root + {literal(file)}')
    metric = 'bbox' if model.family == 'faster-rcnn' else ['bbox', 'segm']
    return dict(_delete_=True, type='CocoMetric', ann_file=path, metric=metric)


def _write_model(data: Data, model: Model, plan: Plan) -> Iterator[str]:
    number = dict(num_classes=Code('num_classes'))
    config = {}
    inherits = model.size != 'nano' and data.task != 'classes'  # an init_cfg
    if model.weights is not None:
        config['backbone'] = dict(init_cfg=dict(type='Pretrained', checkpoint=model.weights))
    elif inherits:
        config['backbone'] = dict(init_cfg=None)
    if model.family == 'stvit':
        yield 'data_preprocessor = dict(num_classes=num_classes)'
        yield assign(
            'model',
            config | dict(head=number, train_cfg=None),
            'Without Mixup and CutMix, which need long training runs.',
        )
        return
    if model.family == 'upernet':
        head = number | dict(loss_decode=dict(class_weight=None))
        config |= dict(data_preprocessor=dict(size=Code('crop_size')), decode_head=head, auxiliary_head=head)
        yield assign('model', config)
        return
    heads = dict(bbox_head=number, mask_head=number)
    if model.family == 'faster-rcnn':
        del heads['mask_head']
    if model.family == 'cascade-mask-rcnn':
        yield (
            '# A list is replaced, not merged: the three heads are those of the base with other classes.\n'
            'bbox_heads = [dict(head, num_classes=num_classes) for head in _base_.model.roi_head.bbox_head]'
        )
        heads['bbox_head'] = Code('bbox_heads')
    config['roi_head'] = heads
    config |= _limits(plan.max_per_img, *_LIMITS[model.size == 'nano'])
    yield assign('model', config, f'An image has {data.most_objects} objects at most.')


def _limits(most: int, base: int, proposals: int) -> dict:
    """Allow ``most`` objects in an image, from more proposals, where the base config has lower limits."""
    limits = dict(test_cfg=dict(rcnn=dict(max_per_img=most)))
    wanted = most * 5 // 2
    if most > base and wanted > proposals:
        rpn = dict(nms_pre=wanted * 4, max_per_img=wanted)
        limits['test_cfg'] = dict(rpn=rpn, **limits['test_cfg'])
        limits['train_cfg'] = dict(rpn_proposal=rpn)
    return limits


def _write_schedule(data: Data, model: Model, plan: Plan) -> Iterator[str]:
    recipe = model.recipe
    run = f'{plan.epochs} epochs of {plan.epoch_length} iterations, for {data.counts["train"]} images'
    start = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=plan.warmup)
    cosine = dict(type='CosineAnnealingLR', eta_min_ratio=0.01, begin=0)
    if data.task == 'segments':
        length, interval = Code('max_iters'), plan.interval * plan.epoch_length
        yield _lines(
            assign('max_iters', plan.iterations, f'{run}.'),
            assign('train_cfg', dict(max_iters=length, val_interval=interval)),
        )
        cosine |= dict(end=length, T_max=length, by_epoch=False)
    else:
        length, interval = Code('max_epochs'), plan.interval
        yield _lines(
            assign('max_epochs', plan.epochs, f'{run}: {plan.iterations} in all.'),
            assign('train_cfg', dict(max_epochs=length, val_interval=interval)),
        )
        cosine |= dict(end=length, T_max=length, by_epoch=True, convert_to_iter_based=True)
    rate = Code(f'{recipe.lr} * (batch_size / {recipe.base_batch}) ** 0.5')
    comment = (
        f'{recipe.lr} for {recipe.base_batch} images in the base config; AdamW follows the square root of the batch.'
    )
    yield _lines(
        assign('optim_wrapper', dict(optimizer=dict(lr=rate)), comment),
        assign('param_scheduler', [start, cosine]),
        'auto_scale_lr = dict(enable=False, base_batch_size=batch_size)',
    )
    hooks = dict(
        logger=dict(interval=plan.log_interval),
        checkpoint=dict(interval=interval, max_keep_ckpts=1, save_best=metric_name(data, model), rule='greater'),
    )
    kind = {'instances': 'DetLocalVisualizer', 'segments': 'SegLocalVisualizer', 'classes': 'UniversalVisualizer'}
    backends = [dict(type='LocalVisBackend')]
    visualizer = dict(_delete_=True, type=kind[data.task], vis_backends=Code('vis_backends'), name='visualizer')
    yield _lines(assign('default_hooks', hooks), assign('vis_backends', backends), assign('visualizer', visualizer))


def _lines(*lines: str) -> str:
    return '\n'.join(lines)


def metric_name(data: Data, model: Model) -> str:
    """Return the name of the metric that chooses the best checkpoint."""
    if data.task == 'instances':
        return 'coco/bbox_mAP' if model.family == 'faster-rcnn' else 'coco/segm_mAP'
    return 'mIoU' if data.task == 'segments' else 'accuracy/top1'
