"""Labels in segmentation maps, as MMSegmentation reads them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from mmengine.dataset import BaseDataset

# Number of pixels of each value in a segmentation map; a map of several channels has the key 'channels' alone.
Values = dict[int | str, int]


def count_values(array: np.ndarray) -> Values:
    """Count the values in a segmentation map as it was decoded."""
    array = array.squeeze()
    if array.ndim != 2:
        return {'channels': array.shape[-1]}
    return dict(zip(*(part.tolist() for part in np.unique(array, return_counts=True)), strict=True))


@dataclass(frozen=True)
class Labels:
    """Labels in the files of segmentation maps, before ``reduce_zero_label`` and ``label_map``.

    Args:
        learned: Names of the classes that the model learns, by label in the file.
        ignored: Labels of pixels that the model ignores.
        reduced: The dataset has ``reduce_zero_label=True``.
        count: Number of classes.
        ignore_index: Label that the model ignores, after loading.
    """

    learned: Mapping[int, str]
    ignored: frozenset[int]
    reduced: bool
    count: int
    ignore_index: int

    @property
    def allowed(self) -> frozenset[int]:
        """All labels that may occur in a file."""
        return self.ignored | self.learned.keys()

    def fit(self, result: object) -> bool:
        """Return False if the packed result of a pipeline has a map with labels that the model does not know."""
        packed = getattr(result.get('data_samples'), 'gt_sem_seg', None) if isinstance(result, Mapping) else None
        if packed is None:
            return True
        above = packed.data[packed.data >= self.count]
        return packed.data.shape[0] == 1 and bool(((above == 255) | (above == self.ignore_index)).all())

    def find_fault(self, values: Values) -> str | None:
        """Return what is wrong with a map that has some values; None if nothing is."""
        if 'channels' in values:
            return f'has {values["channels"]} channels, expected 1 (labels)'
        wrong = values.keys() - self.allowed
        return f'has the labels {write_ranges(wrong)}; allowed are {self.describe()}' if wrong else None

    def describe(self) -> str:
        """Write the labels that may occur in a file, for a message."""
        reduced = ', reduce_zero_label=True' if self.reduced else ''
        learned = f'{write_ranges(self.learned)} ({self.count} classes{reduced})'
        return f'{learned} and, ignored, {write_ranges(self.ignored)}'


def find_labels(dataset: BaseDataset, ignore_index: int = 255) -> Labels | None:
    """Return the labels of a dataset of MMSegmentation; None for other datasets, or without class names.

    MMSegmentation subtracts 1 from every label if ``reduce_zero_label``, and 0 becomes 255; then ``label_map`` replaces
    the labels that it has.

    Args:
        dataset: The dataset.
        ignore_index: Label that the model ignores, see :func:`find_ignore_index`.
    """
    classes = getattr(dataset, 'metainfo', {}).get('classes')
    if not hasattr(dataset, 'reduce_zero_label') or not classes:
        return None
    reduced, count = bool(dataset.reduce_zero_label), len(classes)
    targets = dataset.label_map or {label: label for label in range(count)}
    learned = {old + reduced: str(classes[new]) for old, new in targets.items() if new < count and new != ignore_index}
    ignored = {old + reduced for old in targets} | {255, ignore_index + reduced} | ({0} if reduced else set())
    return Labels(learned, frozenset(ignored) - learned.keys(), reduced, count, ignore_index)


def find_ignore_index(model: Mapping) -> int:
    """Return the label that a segmentor's config ignores."""
    head = model.get('module', model).get('decode_head') or {}  # inside a model for test-time augmentation
    head = head[-1] if isinstance(head, (list, tuple)) else head
    return head.get('ignore_index', 255)


def write_ranges(values: Iterable[int], shown: int = 5) -> str:
    """Write integers as ranges, of many the first ones: ``0 to 5 and 255``."""
    values = set(values)
    starts = sorted(value for value in values if value - 1 not in values)
    ends = sorted(value for value in values if value + 1 not in values)
    ranges = [str(start) if start == end else f'{start} to {end}' for start, end in zip(starts, ends, strict=True)]
    return ' and '.join([*ranges[:shown], *['…'] * (len(ranges) > shown)])
