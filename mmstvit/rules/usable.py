"""Datasets that cannot be built, or have nothing to learn from; a model would train on a loss of 0."""

from collections.abc import Iterator, Mapping

from mmstvit.datasets.coco import explain_unusable

from .coco_values import is_mask
from .facts import Facts
from .findings import Finding

_KIND = 'unusable dataset'


def check_builds(facts: Facts) -> Iterator[Finding]:
    """Refuse datasets that cannot be built, are empty, or whose annotation file is not JSON."""
    for data in facts.datasets:
        if data.error is not None:
            problem = data.error.problem.removeprefix(data.key).strip(': .')
            yield data.finding(_KIND, [problem], remedy=data.error.remedy)


def check_usable(facts: Facts) -> Iterator[Finding]:
    """Refuse datasets for training and validation without an object to learn from; another rule looks at maps."""
    for data in facts.datasets:
        if not data.annotated or data.dataset is None:
            continue
        if data.annotations is not None and not data.annotations.used:
            problem, remedy = explain_unusable(data.annotations, data.classes or ())
            yield data.finding(_KIND, [problem.rstrip('.')], remedy=remedy)
        objects = [info['instances'] for info in data.infos if 'instances' in info]
        if objects and not any(map(_is_usable, (instance for part in objects for instance in part))):
            yield data.finding(_KIND, [f'none of its {len(objects)} images has a usable object'])


def _is_usable(instance: Mapping) -> bool:
    """Return True if MMDetection learns from an object: it is not ignored and has a valid mask or none at all."""
    mask = instance.get('mask')
    return not instance.get('ignore_flag') and (not isinstance(mask, list) or is_mask(mask))
