"""Learning rate schedules whose length is not that of the training run."""

from collections.abc import Iterator, Mapping

import torch
from mmengine.registry import PARAM_SCHEDULERS, DefaultScope
from torch import nn

from mmstvit.nodes import as_list, type_name

from .facts import Facts
from .findings import Finding
from .kinds import FAULT
from .loaders import count_batches

# Schedulers whose `end` changes nothing before it.
_WITHOUT_END = ('MultiStepLR', 'StepLR', 'ExponentialLR', 'ReduceOnPlateauLR')

# Schedulers that reach their last value after `end`, `T_max` or `total_steps`.
_WITH_LENGTH = ('CosineAnnealingLR', 'LinearLR', 'OneCycleLR', 'PolyLR')


def check_schedule(facts: Facts) -> Iterator[Finding]:
    """Warn of schedulers that the training run does not complete, or that end before it, with the rate at its end."""
    if not facts.keys.get('train'):
        return
    loop = facts.cfg.get('train_cfg') or {}
    batches = count_batches(facts, 'train')
    epochs, iterations = loop.get('max_epochs'), loop.get('max_iters')
    if epochs is not None:
        iterations = batches and batches * epochs
    nodes = [node for node in as_list(facts.cfg.get('param_scheduler')) if 'type' in node]
    problems = {}
    for i, node in enumerate(nodes):
        unit, length = ('epochs', epochs) if node.get('by_epoch', True) else ('iterations', iterations)
        problem = length and _judge(node, length, i == len(nodes) - 1)
        if problem:
            problems[f'param_scheduler.{i}'] = f'{type_name(node)} {problem} of {length} {unit}'
    if not problems:
        return
    kind, (key, *_) = 'schedule and length disagree', problems
    values = [f'{key}: {problem}' for key, problem in problems.items()]
    try:
        values += _describe_rates(facts.cfg, nodes, epochs, batches, iterations)
    except (TypeError, ValueError) as error:
        values.append(' '.join(str(error).split()))
        remedy = f'Shorten {key}, or lengthen train_cfg.'
        yield Finding(kind, 'param_scheduler', values, remedy=remedy, split='train', severity=FAULT)
        return
    yield Finding(kind, 'param_scheduler', values, split='train')


def _judge(node: Mapping, length: int, last: bool) -> str | None:
    """Return the problem of a scheduler in a run of some length; None if it fits."""
    name, begin = type_name(node), node.get('begin', 0)
    end = node.get('end', length)
    if begin >= length:
        return f'begins at {begin}, after the training run'
    late = [milestone for milestone in node.get('milestones', ()) if milestone > length]
    if late:
        return f'has milestones {list(node["milestones"])}, of which {late} are not reached in the training run'
    if node.get('warmup_epochs', 0) >= length:
        return f'warms up for {node["warmup_epochs"]} epochs, the whole training run'
    if end > length and name not in _WITHOUT_END:
        return f'ends at {end}, after the training run'
    steps = node.get('T_max') or node.get('total_steps') or end - begin
    reached = begin + steps
    if name in _WITH_LENGTH and begin + 0.9 * steps > length:
        return f'has a length of {steps}, which is not reached in the training run'
    if name in _WITH_LENGTH and name != 'LinearLR' and last and min(reached, end) < length:
        return f'ends at {min(reached, end)}, before the training run'
    return None


def _describe_rates(
    cfg: Mapping, nodes: list, epochs: int | None, batches: int | None, iterations: int | None
) -> list[str]:
    """Run the schedulers and write the learning rates of the training run for a message.

    Raises:
        ValueError: A scheduler does not accept its arguments.
    """
    rate = ((cfg.get('optim_wrapper') or {}).get('optimizer') or {}).get('lr')
    if rate is None or not iterations:
        return []
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=rate)
    defaults = dict(optimizer=optimizer, epoch_length=batches)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        lengths = [epochs if node.get('by_epoch', True) else iterations for node in nodes]
        built = [
            PARAM_SCHEDULERS.build({'end': length, **node} if length else dict(node), default_args=defaults)
            for node, length in zip(nodes, lengths, strict=True)
        ]
    optimizer.step()  # PyTorch warns of a scheduler that steps first
    rates = [optimizer.param_groups[0]['lr']]
    for step in range(1, iterations):
        for scheduler in built:
            if not scheduler.by_epoch or (epochs and step % batches == 0):
                scheduler.step()
        rates.append(optimizer.param_groups[0]['lr'])
    return [f'the learning rate is {max(rates):.3g} at most and {rates[-1]:.3g} at the end; optimizer.lr is {rate:g}']
