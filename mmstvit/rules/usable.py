"""Datasets that cannot be built, or have nothing to learn from."""

from collections.abc import Iterator

from mmstvit.datasets.build import check_usable
from mmstvit.datasets.coco import explain_unusable
from mmstvit.errors import DataError

from .facts import DatasetFacts, Facts
from .findings import Finding


def datasets_that_cannot_be_built(facts: Facts) -> Iterator[Finding]:
    """Find datasets that cannot be built, are empty, or whose annotation file is not JSON."""
    for data in facts.datasets:
        if data.error is not None:
            yield _unusable(data, data.error)


def datasets_without_annotations(facts: Facts) -> Iterator[Finding]:
    """Find datasets for training and validation without an object or a labeled pixel to learn from."""
    for data in facts.datasets:
        if not data.annotated or data.dataset is None:
            continue
        try:
            if data.annotations is None and data.content is None:
                check_usable(data.dataset, data.key)
            elif data.annotations is not None and not data.annotations.used:
                raise DataError(*explain_unusable(data.annotations, data.classes or ()))
        except DataError as error:
            yield _unusable(data, error)


def _unusable(data: DatasetFacts, error: DataError) -> Finding:
    return data.finding('unusable dataset', error.problem.removeprefix(data.key).lstrip(': '), error.remedy)
