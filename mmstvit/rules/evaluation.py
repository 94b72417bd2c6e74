"""Evaluation of detectors: the annotations that the evaluator reads, and the number of detections per image."""

import filecmp
import os
from collections.abc import Iterator

import numpy as np
from mmengine.config import Config

from mmstvit.fileio import is_local

from .facts import Facts
from .findings import Finding


def check_annotation_files(facts: Facts) -> Iterator[Finding]:
    """Refuse an evaluator that reads other annotations than the dataset whose predictions it gets."""
    for split, keys in facts.keys.items():
        datasets = facts.read_by(split)
        if len(datasets) != 1 or datasets[0].content is None:
            continue
        (data,) = datasets
        for key, node in facts.evaluators(split):
            own, other = data.dataset.ann_file, node.get('ann_file')
            if isinstance(other, str) and other and not _is_same(own, other):
                message = f'{key}.ann_file is {other}, but {keys[0]} reads {own}: the metrics would be wrong.'
                remedy = f'Set --cfg-options {key}.ann_file={own}'
                yield Finding('evaluator reads other annotations', message, remedy, f'{key}.ann_file', split=split)


def check_unannotated(facts: Facts) -> Iterator[Finding]:
    """Refuse to evaluate a COCO file without annotations, which fails after the last image."""
    for data, annotations in facts.of_coco():
        nodes = [(key, node) for key, node in facts.evaluators(data.split) if not node.get('format_only')]
        if data.split == 'test' and nodes and not annotations.entries:
            key = nodes[0][0]
            message = f'{annotations.path} has no annotations, with which {key} would compare the predictions.'
            remedy = (
                f'Write the predictions alone: --cfg-options {key}.format_only=True {key}.outfile_prefix=predictions'
            )
            yield data.finding('nothing to evaluate', message, remedy, key)


def _is_same(one: str, other: str) -> bool:
    """Return True if two paths name files of the same content, or if that is unknown."""
    if os.path.normpath(one) == os.path.normpath(other) or not is_local(one) or not is_local(other):
        return True
    one, other = os.path.expanduser(one), os.path.expanduser(other)
    return os.path.isfile(one) and os.path.isfile(other) and filecmp.cmp(one, other, shallow=False)


def check_max_per_img(facts: Facts) -> Iterator[Finding]:
    """Warn of images with more objects than the detector returns per image."""
    limit = _find_limit(facts.cfg)
    if limit is None:
        return
    key, most = limit
    for data, annotations in facts.of_coco():
        counts = annotations.objects
        crowded = np.flatnonzero(counts > most).tolist() if data.split != 'train' else []
        if crowded:
            images, lost, largest = list(annotations.images.values()), int((counts - most).clip(0).sum()), counts.max()
            message = (
                f'images of {annotations.path} have more objects (up to {largest}) than {key}, {most}: {lost} of '
                f'{annotations.used} cannot be found, recall is at most {1 - lost / annotations.used:.2f}.'
            )
            remedy = f'Set --cfg-options {key}={max(100, 2 * largest)}'
            found = [f'{images[row]["file_name"]}: {counts[row]} objects' for row in crowded]
            yield data.finding('more objects than max_per_img', message, remedy, key, found, len(images))


def _find_limit(cfg: Config) -> tuple[str, int] | None:
    """Return key and value of the number of detections per image."""
    test_cfg = (cfg.get('model') or {}).get('test_cfg') or {}
    for key, node in (('model.test_cfg.rcnn', test_cfg.get('rcnn') or {}), ('model.test_cfg', test_cfg)):
        most = node.get('max_per_img', -1)
        if isinstance(most, int) and most > 0:
            return f'{key}.max_per_img', most
    return None
