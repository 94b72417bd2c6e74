"""Datasets that cannot be built, or have nothing to learn from; a model would train on a loss of 0."""

from collections.abc import Iterator, Mapping
from itertools import chain

from mmstvit.datasets.coco import write_counts

from .coco_values import are_polygons
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
        if not data.annotated:
            continue
        annotations = data.annotations
        if annotations is not None and not annotations.used:
            problem = f'{annotations.path} has {len(annotations.images)} images and no annotation'
            if total := len(annotations.entries):
                dropped = write_counts(annotations.dropped)
                problem = f'none of the {total} annotations in {annotations.path} is used: {dropped}'
            yield data.finding(_KIND, [problem])
        objects = [info['instances'] for info in data.infos if 'instances' in info]
        if objects and not any(map(_is_usable, chain.from_iterable(objects))):
            yield data.finding(_KIND, [f'none of its {len(objects)} images has a usable object'])


def _is_usable(instance: Mapping) -> bool:
    """Return True if MMDetection learns from an object: it is not ignored and has a valid mask or none at all."""
    mask = instance.get('mask')
    return not instance.get('ignore_flag') and (not isinstance(mask, list) or are_polygons(mask))
