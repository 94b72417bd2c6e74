"""Dataloaders: batches of images of several sizes, and single images under BatchNorm."""

import math
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.dist import get_world_size

from mmstvit.nodes import find_parts, type_name

from .channels import load_inputs
from .facts import DatasetFacts, Facts
from .findings import Finding


def check_batch_sizes(facts: Facts) -> Iterator[Finding]:
    """Refuse batches of images of several sizes, which cannot be stacked.

    MMDetection pads them, and MMSegmentation in training; MMPreTrain pads what ``pseudo_collate`` collects.
    """
    splits = {'mmseg': ('val', 'test'), 'mmpretrain': ('train', 'val', 'test')}
    for split in splits.get(facts.scope, ()):
        batch, loader = _batch_size(facts.cfg, split), facts.cfg.get(f'{split}_dataloader') or {}
        pads = facts.scope == 'mmpretrain' and 'pseudo' in str((loader.get('collate_fn') or {}).get('type'))
        if batch < 2 or pads:
            continue
        shapes: dict[tuple, str] = {}
        for data in facts.read_by(split):
            sizes = {}
            for header in data.headers:
                sizes.setdefault(header.size, header)
            for header in list(sizes.values())[:8] if len(sizes) > 1 or shapes else []:
                shape, _ = load_inputs(data, header)
                if shape is not None:
                    shapes.setdefault(shape[-2:], header.path)
        if len(shapes) > 1:
            key = f'{split}_dataloader.batch_size'
            values = [f'{key} is {batch}', *(f'{path} is {width}×{height}' for (height, width), path in shapes.items())]
            yield Finding('batch of several sizes', key, values, remedy=f'Set --cfg-options {key}=1', split=split)


def check_slide(facts: Facts) -> Iterator[Finding]:
    """Refuse a segmentor's sliding window without size and stride, or with gaps between its positions."""
    test_cfg = facts.cfg.model.get('test_cfg') or {}
    if facts.scope == 'mmseg' and test_cfg.get('mode') == 'slide':
        sizes = {name: test_cfg.get(name) for name in ('crop_size', 'stride')}
        absent = [f'it needs {name}' for name, value in sizes.items() if value is None]
        if absent or any(step > side for side, step in zip(*sizes.values(), strict=False)):
            values = absent or [f'{name} is {tuple(value)}' for name, value in sizes.items()]
            yield Finding('sliding window', 'model.test_cfg', values)


def check_batch_norm(facts: Facts) -> Iterator[Finding]:
    """Refuse BatchNorm after pooling to 1×1 in a batch of one image: PyTorch needs two values per channel."""
    if not facts.keys.get('train') or facts.scope != 'mmseg':
        return
    heads = [f'{key} ({kind})' for key, kind in _pooled_batch_norms(facts.cfg)]
    batch, samples = _batch_size(facts.cfg, 'train'), count_samples(facts, 'train')
    loader = facts.cfg.train_dataloader
    finite = 'Infinite' not in str((loader.get('sampler') or {}).get('type')) and not loader.get('drop_last')
    if not heads or (get_world_size() > 1 and facts.cfg.get('sync_bn')):
        return
    if batch == 1:
        problem, remedy = 'batch_size is 1', 'Set --cfg-options train_dataloader.batch_size=2'
    elif finite and samples and math.ceil(samples / get_world_size()) % batch == 1:
        problem = f'the last batch of an epoch has one image ({samples} images, batch_size={batch})'
        remedy = 'Set --cfg-options train_dataloader.drop_last=True'
    else:
        return
    remedy += ", or replace BatchNorm by norm_cfg=dict(type='GN', num_groups=32)."
    yield Finding('BatchNorm of one image', 'train_dataloader', [problem, *heads], remedy=remedy, split='train')


def _pooled_batch_norms(cfg: Config) -> Iterator[tuple[str, str]]:
    """Yield key and type of a segmentor's heads that normalize features of 1×1 with BatchNorm."""
    for name in ('decode_head', 'auxiliary_head'):
        for key, head in find_parts(cfg.model.get(name), f'model.{name}'):
            kind = type_name(head)
            pools = 1 in head.get('pool_scales', (1,)) if kind in ('PSPHead', 'UPerHead') else 'ASPP' in kind
            norm = (head.get('norm_cfg') or {}).get('type')
            if pools and norm in ('BN', 'BN2d', 'SyncBN'):
                yield key, kind


def count_samples(facts: Facts, split: str) -> int | None:
    """Count the samples of a split, with repetitions; None if a dataset cannot be counted."""
    return _count(facts.cfg[f'{split}_dataloader'].dataset, iter(facts.read_by(split)))


def _count(node: object, leaves: Iterator[DatasetFacts]) -> int | None:
    """Count the samples of a dataset's config, whose inner datasets are ``leaves`` in their order."""
    if isinstance(node, (list, tuple)):
        counts = [_count(part, leaves) for part in node]
        return None if None in counts else sum(counts)
    for name in ('dataset', 'datasets'):
        if node.get(name) is not None:
            count = _count(node[name], leaves)
            return count and count * node.get('times', 1)
    data = next(leaves)
    if data.annotations is None:
        return None if data.dataset is None or data.content is not None else len(data.dataset)
    images, indices = len(data.annotations.images) - data.annotations.dropped_images.total(), data.cfg.get('indices')
    return min(indices, images) if isinstance(indices, int) and indices > 0 else images


def count_batches(facts: Facts, split: str) -> int | None:
    """Count the batches of an epoch in each process; None if unknown."""
    if not facts.keys.get(split):
        return None
    samples, batch = count_samples(facts, split), _batch_size(facts.cfg, split)
    loader = facts.cfg[f'{split}_dataloader']
    if not samples or not batch:
        return None
    own = math.ceil(samples / get_world_size())
    batches = own // batch if loader.get('drop_last') else math.ceil(own / batch)
    return min(batches, loader.get('num_batch_per_epoch') or batches) or None


def _batch_size(cfg: Config, split: str) -> int:
    loader = cfg.get(f'{split}_dataloader') or {}
    return loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size') or 0
