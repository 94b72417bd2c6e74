"""Labels: the classes of heads, samples and top-k accuracies."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from mmengine.fileio import list_from_file

from mmstvit.datasets.coco import first_names

from .facts import Facts
from .findings import Finding


def check_heads(facts: Facts) -> Iterator[Finding]:
    """Refuse heads whose ``num_classes`` is not the number of class names."""
    # Another rule compares the names of the splits.
    data = next((data for data in facts.datasets if data.classes and not data.cfg.get('return_classes')), None)
    wrong = [(key, number) for key, number in facts.heads if data is not None and number != len(data.classes)]
    if wrong:
        values = [f'{len(data.classes)} names ({first_names(data.classes)})', *(f'{key} is {n}' for key, n in wrong)]
        options = ' '.join(f'{key}={len(data.classes)}' for key, _ in wrong)
        remedy = f'Set --cfg-options {options}, or correct the class names.'
        yield Finding('classes and heads disagree', data.key, values, remedy=remedy)


def check_labels(facts: Facts) -> Iterator[Finding]:
    """Refuse labels of images, and of objects in other formats than COCO, that are not those of the classes."""
    for data in facts.datasets:
        if data.content is not None or not data.classes:
            continue
        count, source = len(data.classes), getattr(data.dataset, 'ann_file', '') or data.key
        labels = [(info, label) for info in data.infos for label in labels_of(info)]
        wrong = [f'{info.get("img_path")}: label {label}' for info, label in labels if not 0 <= label < count]
        if wrong:
            yield data.finding('label out of range', wrong, source, total=len(labels))
        seen = Counter(label for _, label in labels)
        absent = [str(name) for label, name in enumerate(data.classes) if label not in seen]
        if absent and seen:
            yield data.finding('class without samples', absent, source, total=count)


def check_lists(facts: Facts) -> Iterator[Finding]:
    """Refuse lists of MMPreTrain with a line that is not a path, a blank and the number of a class."""
    for data in facts.datasets:
        dataset = data.dataset if data.is_read_by('mmpretrain.datasets.custom') else None
        if dataset is not None and dataset.with_label and os.path.isfile(dataset.ann_file):
            lines = list_from_file(dataset.ann_file)
            wrong = [f'line {i} {why}: {line[:80]!r}' for i, line in enumerate(lines, 1) if (why := _judge_line(line))]
            if wrong:
                yield data.finding('invalid list of files', wrong, dataset.ann_file, total=len(lines))


def _judge_line(line: str) -> str:
    """Return what is wrong with a line of a list of MMPreTrain; empty if nothing is."""
    name, blank, label = line.strip().rpartition(' ')
    if not line.strip():
        return 'is empty'
    if blank and re.fullmatch(r'[+-]?\d+', label) and not name.endswith((',', ';')):
        return ''
    marks = {'\t': 'has a tab in place of a blank', ',': 'has a comma', ';': 'has a semicolon'}
    return next((why for mark, why in marks.items() if mark in line), 'has no number at its end')


def labels_of(info: Mapping) -> list[int]:
    """Return the labels of a parsed sample: of the image, or of its objects."""
    if 'gt_label' in info:
        labels = info['gt_label']
        return list(labels) if isinstance(labels, (list, tuple)) else [labels]
    return [instance['bbox_label'] for instance in info.get('instances', ()) if 'bbox_label' in instance]


def check_topk(facts: Facts) -> Iterator[Finding]:
    """Refuse a top-k accuracy with k above the number of classes, which fails after the first epoch."""
    count = min((number for _, number in facts.heads), default=None)
    head = facts.cfg.get('model', {}).get('head')
    nodes = [*facts.evaluators('val'), *facts.evaluators('test')]
    nodes += [('model.head', head)] if isinstance(head, Mapping) and head.get('cal_acc') else []
    for key, node in nodes if facts.scope == 'mmpretrain' and count else ():
        topk = node.get('topk', 1)
        if (max(topk) if isinstance(topk, (list, tuple)) else topk) > count:
            values, key = [f'{topk!r}, but the model has {count} classes'], f'{key}.topk'
            yield Finding('top-k above the classes', key, values, remedy=f'Set --cfg-options {key}=1')
