"""Datasets that cannot be built, or have nothing to learn from."""

from collections.abc import Iterator

from mmstvit.datasets.coco import explain_unusable
from mmstvit.datasets.usable import check_usable
from mmstvit.errors import DataError

from .facts import Facts
from .findings import Finding


def datasets_that_cannot_be_built(facts: Facts) -> Iterator[Finding]:
    """Find datasets that cannot be built, are empty, or whose annotation file is not JSON."""
    for data in facts.datasets:
        if data.error is not None:
            message = data.error.problem.removeprefix(data.key).lstrip(': ')
            remedy = data.error.remedy or 'Correct the config of the dataset, or its files.'
            yield Finding('unusable dataset', message, remedy, data.key, split=data.split)


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
            problem = error.problem.removeprefix(data.key).lstrip(': ')
            yield Finding('unusable dataset', problem, error.remedy, data.key, split=data.split)
