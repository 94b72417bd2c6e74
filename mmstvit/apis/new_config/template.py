"""The text of a new config: templates, and what the data and the model put into them."""

from collections.abc import Iterator
from pathlib import Path

from mmstvit.drawing import class_colors

from .code import Code, assign, literal
from .models import Model
from .options import NEXT_TO_CONFIG, Data
from .plan import Plan

_TEMPLATES = Path(__file__).parent / 'templates'
# Is nano -> objects per image, and proposals, of the base configs.
_LIMITS = {True: (20, 50), False: (100, 1000)}
_DATASETS = {'instances': 'CocoDataset', 'segments': 'BaseSegDataset', 'classes': 'CustomDataset'}
_VISUALIZERS = {'instances': 'DetLocalVisualizer', 'segments': 'SegLocalVisualizer', 'classes': 'UniversalVisualizer'}


def write_config(data: Data, model: Model, plan: Plan, beside: str) -> str:
    """Write the text of a config.

    Args:
        data: The data.
        model: The model.
        plan: The numbers.
        beside: What the names of files beside the config begin with.
    """
    by_epoch = data.task != 'segments'
    crop = min(plan.scale) // 32 * 32
    pipelines = _read_template(data.task).format(
        median='×'.join(map(str, plan.median_size)),
        scale=plan.scale,
        side=plan.scale[0],
        crop=(crop, crop),
        annotations='with_bbox=True' if model.family == 'faster-rcnn' else 'with_bbox=True, with_mask=True',
    )
    return _read_template('config').format(
        model=model.name,
        base=model.base,
        names='\n'.join(_write_names(data)),
        num_classes=len(data.classes),
        pipelines=pipelines.strip(),
        batch_size=plan.batch_size,
        num_workers=plan.num_workers,
        loaders='\n\n'.join(_write_loaders(data, model, plan, beside)),
        heads='\n\n'.join(_write_model(data, model, plan)),
        run=f'{plan.epochs} epochs of {plan.epoch_length} iterations, for {data.counts["train"]} images: '
        f'{plan.iterations} in all.',
        length='max_epochs' if by_epoch else 'max_iters',
        count=plan.epochs if by_epoch else plan.iterations,
        interval=plan.interval * (1 if by_epoch else plan.epoch_length),
        lr=model.recipe.lr,
        base_batch=model.recipe.base_batch,
        warmup=plan.warmup,
        by_epoch=by_epoch,
        log_interval=plan.log_interval,
        metric=metric_name(data, model),
        visualizer=_VISUALIZERS[data.task],
    )


def _read_template(name: str) -> str:
    return (_TEMPLATES / f'{name}.py.in').read_text(encoding='utf-8')


def _write_names(data: Data) -> Iterator[str]:
    yield assign('data_root', f'{data.root.as_posix().rstrip("/")}/')
    yield assign('classes', list(data.classes) if data.task == 'classes' else tuple(data.classes), data.comment)
    if data.task != 'classes':
        yield assign('palette', data.palette or class_colors(data.classes))
        yield 'metainfo = dict(classes=classes, palette=palette)'


def _write_loaders(data: Data, model: Model, plan: Plan, beside: str) -> Iterator[str]:
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


def metric_name(data: Data, model: Model) -> str:
    """Return the name of the metric that chooses the best checkpoint."""
    if data.task == 'instances':
        return 'coco/bbox_mAP' if model.family == 'faster-rcnn' else 'coco/segm_mAP'
    return 'mIoU' if data.task == 'segments' else 'accuracy/top1'
