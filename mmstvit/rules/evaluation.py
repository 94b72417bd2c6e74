"""Evaluation of detectors: the annotations that the evaluator reads, and the number of detections per image."""

import filecmp
import os
from collections.abc import Iterator

import numpy as np

from mmstvit.fileio import is_local

from .facts import Facts
from .findings import Finding


def check_annotation_files(facts: Facts) -> Iterator[Finding]:
    """Refuse an evaluator that reads other annotations than the dataset whose predictions it gets."""
    for split in facts.keys:
        datasets = facts.read_by(split)
        own = datasets[0].dataset.ann_file if len(datasets) == 1 and datasets[0].content is not None else ''
        for key, node in facts.evaluators(split) if own else ():
            other = node.get('ann_file')
            if isinstance(other, str) and other and not _is_same(own, other):
                key, values = f'{key}.ann_file', [f'{other}, but the dataset reads {own}']
                remedy = f'Set --cfg-options {key}={own}'
                yield Finding('evaluator reads other annotations', key, values, remedy=remedy, split=split)


def check_unannotated(facts: Facts) -> Iterator[Finding]:
    """Refuse to evaluate a COCO file without annotations, which fails after the last image."""
    for data, annotations in facts.of_coco():
        keys = [key for key, node in facts.evaluators(data.split) if not node.get('format_only')]
        if data.split == 'test' and keys and not annotations.entries:
            options = f'{keys[0]}.format_only=True {keys[0]}.outfile_prefix=predictions'
            remedy = f'Write the predictions alone: --cfg-options {options}'
            yield data.finding('nothing to evaluate', [annotations.path], keys[0], remedy=remedy)


def _is_same(one: str, other: str) -> bool:
    """Return True if two paths name files of the same content, or if that is unknown."""
    if os.path.normpath(one) == os.path.normpath(other) or not is_local(one) or not is_local(other):
        return True
    one, other = os.path.expanduser(one), os.path.expanduser(other)
    return os.path.isfile(one) and os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)


def check_max_per_img(facts: Facts) -> Iterator[Finding]:
    """Warn of images with more objects than the detector returns per image."""
    test_cfg = (facts.cfg.get('model') or {}).get('test_cfg') or {}
    nodes = {'model.test_cfg.rcnn': test_cfg.get('rcnn') or {}, 'model.test_cfg': test_cfg}
    limits = {f'{key}.max_per_img': node.get('max_per_img') for key, node in nodes.items()}
    key, most = next(((key, n) for key, n in limits.items() if isinstance(n, int) and n > 0), ('', 0))
    for data, annotations in facts.of_coco() if most else ():
        counts = annotations.objects
        crowded = np.flatnonzero(counts > most).tolist() if data.split != 'train' else []
        if crowded:
            images = [*annotations.images.values()]
            lost = int((counts[crowded] - most).sum())
            recall = f'{lost} of {annotations.used} objects are above {most}, recall is at most '
            values = [f'{recall}{1 - lost / annotations.used:.2f}, up to {max(counts)} in an image']
            values += [f'{images[row]["file_name"]}: {counts[row]} objects' for row in crowded]
            options = dict(remedy=f'Set --cfg-options {key}={max(100, 2 * max(counts))}', count=len(crowded))
            yield data.finding('more objects than max_per_img', values, key, total=len(counts), **options)
