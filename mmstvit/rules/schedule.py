"""Learning rate schedules whose length is not that of the training run."""

from collections.abc import Iterator, Mapping

from mmstvit.nodes import as_list, type_name

from .facts import Facts
from .findings import Finding
from .loaders import count_batches

# Schedulers whose `end` changes nothing before it.
_WITHOUT_END = ('MultiStepLR', 'StepLR', 'ExponentialLR', 'ReduceOnPlateauLR')

# Schedulers that reach their last value after `end`, `T_max` or `total_steps`.
_WITH_LENGTH = ('CosineAnnealingLR', 'LinearLR', 'OneCycleLR', 'PolyLR')


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
