"""Length of the training run against its schedule; batches of images of several sizes, and sliding windows."""

import math
from collections.abc import Iterator, Mapping

from mmengine.config import Config
from mmengine.dist import get_world_size

from mmstvit.nodes import as_list, type_name

from .channels import load_inputs
from .facts import DatasetFacts, Facts
from .findings import Finding

# Schedulers whose `end` changes nothing before it.
_WITHOUT_END = ('MultiStepLR', 'StepLR', 'ExponentialLR', 'ReduceOnPlateauLR')

# Schedulers that reach their last value after `end`, `T_max` or `total_steps`.
_WITH_LENGTH = ('CosineAnnealingLR', 'LinearLR', 'OneCycleLR', 'PolyLR')


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


def check_schedule(facts: Facts) -> Iterator[Finding]:
    """Warn of schedulers that the training run does not complete, or that end before it."""
    if not facts.keys.get('train'):
        return
    loop = facts.cfg.get('train_cfg') or {}
    epochs, iterations = loop.get('max_epochs'), loop.get('max_iters')
    if epochs is not None:
        batches = count_batches(facts, 'train')
        iterations = batches and batches * epochs
    nodes = [node for node in as_list(facts.cfg.get('param_scheduler')) if 'type' in node]
    values = []
    for i, node in enumerate(nodes):
        unit, length = ('epochs', epochs) if node.get('by_epoch', True) else ('iterations', iterations)
        problem = length and _judge(node, length, i == len(nodes) - 1)
        if problem:
            values.append(f'param_scheduler.{i}: {type_name(node)} {problem} of {length} {unit}')
    if values:
        yield Finding('schedule and length disagree', 'param_scheduler', values, split='train')


def _judge(node: Mapping, length: int, last: bool) -> str | None:
    """Return the problem of a scheduler in a run of some length; None if it fits."""
    name, begin = type_name(node), node.get('begin', 0)
    end = node.get('end', length)
    if begin >= length:
        return f'begins at {begin}, after the training run'
    late = [milestone for milestone in node.get('milestones', ()) if milestone > length]
    if late:
        return f'has milestones {list(node["milestones"])}, of which {late} are not reached in the training run'
    if end > length and name not in _WITHOUT_END:
        return f'ends at {end}, after the training run'
    steps = node.get('T_max') or node.get('total_steps') or end - begin
    reached = begin + steps
    if name in _WITH_LENGTH and begin + 0.9 * steps > length:
        return f'has a length of {steps}, which is not reached in the training run'
    if name in _WITH_LENGTH and name != 'LinearLR' and last and min(reached, end) < length:
        return f'ends at {min(reached, end)}, before the training run'
    return None


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
        return len(data.infos) or None
    images, indices = len(data.annotations.images) - data.annotations.dropped_images.total(), data.cfg.get('indices')
    return min(indices, images) if isinstance(indices, int) and indices > 0 else images


def count_batches(facts: Facts, split: str) -> int | None:
    """Count the batches of an epoch in each process; None if unknown."""
    if not facts.keys.get(split):
        return None
    loader = facts.cfg[f'{split}_dataloader']
    samples, batch = _count(loader.dataset, iter(facts.read_by(split))), _batch_size(facts.cfg, split)
    if not samples or not batch:
        return None
    own = math.ceil(samples / get_world_size())
    batches = own // batch if loader.get('drop_last') else math.ceil(own / batch)
    return min(batches, loader.get('num_batch_per_epoch') or batches) or None


def _batch_size(cfg: Config, split: str) -> int:
    loader = cfg.get(f'{split}_dataloader') or {}
    return loader.get('batch_size') or (loader.get('batch_sampler') or {}).get('batch_size') or 0
