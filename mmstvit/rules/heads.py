"""Heads of the model: the number of their classes, and the top-k accuracy that they allow."""

from collections.abc import Iterator, Mapping

from mmengine.config import Config

from mmstvit.datasets.coco import first_names

from .facts import Facts
from .findings import FAULT, Finding


def check_heads(facts: Facts) -> Iterator[Finding]:
    """Refuse heads whose ``num_classes`` is not the number of class names."""
    seen = set()
    for data in facts.datasets:
        classes = data.classes
        if not classes or data.cfg.get('return_classes'):  # names in prompts, not labels
            continue
        wrong = [(key, number) for key, number in facts.heads if number != len(classes)]
        if not wrong or classes in seen:
            continue
        seen.add(classes)
        heads = ', '.join(f'{key} is {number}' for key, number in wrong)
        options = ' '.join(f'{key}={len(classes)}' for key, _ in wrong)
        message = f'{data.key} has {len(classes)} classes ({first_names(classes)}), but {heads}.'
        remedy = f'Set --cfg-options {options}, or correct the class names.'
        yield Finding('classes and heads disagree', FAULT, message, remedy, data.key, len(wrong), len(facts.heads))


def check_topk(facts: Facts) -> Iterator[Finding]:
    """Refuse a top-k accuracy with k above the number of classes, which fails after the first epoch."""
    if facts.cfg.get('default_scope') != 'mmpretrain' or not facts.heads:
        return
    count = min(number for _, number in facts.heads)
    for key, topk in _find_topk(facts.cfg):
        largest = max(topk) if isinstance(topk, (list, tuple)) else topk
        if largest > count:
            message = f'{key} is {topk!r}, but the model has {count} classes: there is no top-{largest} accuracy.'
            yield Finding('top-k above the classes', FAULT, message, f'Set --cfg-options {key}=1', key)


def _find_topk(cfg: Config) -> Iterator[tuple[str, int | tuple]]:
    """Yield ``topk`` of evaluators, and of heads that compute accuracy in training, with their dotted keys."""
    splits = {data: cfg.get(f'{data}_evaluator') for data in ('val', 'test')}
    for split, node in splits.items():
        for i, evaluator in enumerate(node if isinstance(node, (list, tuple)) else [node]):
            key = f'{split}_evaluator.{i}' if isinstance(node, (list, tuple)) else f'{split}_evaluator'
            if isinstance(evaluator, Mapping) and 'topk' in evaluator:
                yield f'{key}.topk', evaluator['topk']
    head = cfg.model.get('head')
    if isinstance(head, Mapping) and head.get('cal_acc'):
        yield 'model.head.topk', head.get('topk', 1)
