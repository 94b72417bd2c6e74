"""COCO annotation files as MMDetection reads them, with the annotations that it drops without a message."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, compress
from operator import itemgetter

import numpy as np
from mmengine import fileio
from mmengine.dataset import BaseDataset

from mmstvit.errors import DataError

from .json_files import parse_json

_BYTE_ORDER_MARK = b'\xef\xbb\xbf'
CROWD = 'crowd'
# Reasons for which MMDetection drops an object that CocoMetric counts.
_NEVER_LEARNED = ('area 0', 'box below 1 pixel', 'outside the image')
# Reasons for which MMDetection does not learn from an annotation; the first one that applies is counted.
REASONS = ('', 'category not in classes', 'ignore=1', *_NEVER_LEARNED, CROWD)


def is_coco(dataset: BaseDataset | type) -> bool:
    """Return True if a dataset, or a class of datasets, reads COCO annotation files as MMDetection's CocoDataset.

    CocoPanopticDataset lists its samples in the same way, but reads other annotations.
    """
    methods = [getattr(dataset, name, None) for name in ('load_data_list', 'parse_data_info')]
    names = [(getattr(method, '__module__', ''), getattr(method, '__qualname__', '')) for method in methods]
    return all(module == 'mmdet.datasets.coco' and name.startswith('CocoDataset.') for module, name in names)


def read_annotations(dataset: BaseDataset) -> object:
    """Read the annotation file of a dataset.

    Raises:
        DataError: The file cannot be read as JSON, or starts with a byte order mark, which pycocotools refuses.
    """
    try:
        content = fileio.get(dataset.ann_file, backend_args=dataset.backend_args)
    except OSError as error:
        raise DataError(f'{dataset.ann_file} cannot be read: {error}.') from error
    if content.startswith(_BYTE_ORDER_MARK):
        raise DataError(f'{dataset.ann_file} starts with a byte order mark.', 'Save it in UTF-8 without the mark.')
    return parse_json(content, dataset.ann_file)


def first_names(names: Iterable[object], shown: int = 5) -> str:
    """Join the first of many names for a message."""
    names = list(names)
    return ', '.join(map(repr, names[:shown])) + (', …' if len(names) > shown else '')


@dataclass
class Annotations:
    """Content of a COCO annotation file, in columns, and the part of it that MMDetection uses.

    Args:
        images: Entries of the images by id.
        names: Names of the categories by id.
        entries: The N annotations.
        rows: (N,), position in ``images``.
        boxes: (N, 4), ``bbox``.
        sizes: (N, 2), width and height of the image.
        reasons: (N,), position in :data:`REASONS`; 0 for an annotation that is used.
        crowd: (N,), True for crowds.
        path: The file.
        dropped: Number of annotations by the reason why they are dropped.
        dropped_images: Number of images by the reason why they are dropped.
    """

    images: dict[object, Mapping]
    names: dict[object, str]
    entries: list[Mapping]
    rows: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    reasons: np.ndarray
    crowd: np.ndarray
    path: str
    dropped: Counter[str] = field(init=False)
    dropped_images: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        counts = np.bincount(self.reasons, minlength=len(REASONS)).tolist()
        self.dropped = +Counter(dict(zip(REASONS[1:], counts[1:], strict=True)))

    @cached_property
    def objects(self) -> np.ndarray:
        """Number of used objects of each image, in the order of ``images``."""
        return np.bincount(self.rows[self.reasons == 0], minlength=len(self.images))

    @property
    def never_learned(self) -> np.ndarray:
        """(N,), True for objects that MMDetection drops in training and CocoMetric counts."""
        return self.having(*_NEVER_LEARNED) & ~self.crowd

    @property
    def learned_entries(self) -> int:
        """Number of annotations whose category is in ``metainfo.classes``."""
        return len(self.entries) - self.dropped['category not in classes']

    @property
    def used(self) -> int:
        """Number of annotations that are used."""
        return int(self.objects.sum())

    def having(self, *reasons: str) -> np.ndarray:
        """Return (N,), True for annotations that are dropped for one of these reasons; ``''``: that are used."""
        return np.isin(self.reasons, [REASONS.index(reason) for reason in reasons])

    def choose(self, chosen: np.ndarray) -> list[Mapping]:
        """Return the annotations for which an array (N,) is True."""
        return list(compress(self.entries, chosen.tolist()))

    def summary(self) -> str:
        """Write what is used, and what is dropped for which reason, in one line."""
        images = len(self.images)
        used = f'{self.used} of {len(self.entries)} annotations'
        used += f' in {images - self.dropped_images.total()} of {images} images'
        dropped, lost = write_counts(self.dropped), write_counts(self.dropped_images)
        parts = [part for part in (dropped, lost and f'images: {lost}') if part]
        return used + (f' (dropped: {"; ".join(parts)})' if parts else '')


def write_counts(counter: Counter[str]) -> str:
    """Write numbers for a message, the largest one first."""
    return ', '.join(f'{count} {reason}' for reason, count in counter.most_common())


def summarize(content: Mapping, dataset: BaseDataset | None = None) -> Annotations:
    """Find what MMDetection uses of an annotation file whose format is sound.

    Args:
        content: The file.
        dataset: The dataset, for its classes and filters, whose samples need not be loaded; None uses all categories.
    """
    names = {category['id']: category['name'] for category in content['categories']}
    classes = names.values() if dataset is None else set(dataset.metainfo.get('classes', ()))
    learned = {key for key, name in names.items() if name in classes}
    images = {image['id']: image for image in content['images']}
    entries = content.get('annotations') or []
    count = len(entries)
    index = {key: row for row, key in enumerate(images)}
    rows = np.fromiter(map(index.__getitem__, map(itemgetter('image_id'), entries)), np.int64, count)
    boxes = np.fromiter(chain.from_iterable(map(itemgetter('bbox'), entries)), float, 4 * count).reshape(-1, 4)
    areas = np.fromiter(map(itemgetter('area'), entries), float, count)
    sizes = np.array([(image['width'], image['height']) for image in images.values()], float).reshape(-1, 2)[rows]
    crowd = np.fromiter((bool(entry.get('iscrowd')) for entry in entries), bool, count)
    conditions = [
        ~np.fromiter(map(learned.__contains__, map(itemgetter('category_id'), entries)), bool, count),
        np.fromiter((bool(entry.get('ignore')) for entry in entries), bool, count),
        areas <= 0,
        (boxes[:, 2:] < 1).any(1),
        ((boxes[:, :2] >= sizes) | (boxes[:, :2] + boxes[:, 2:] <= 0)).any(1),
        crowd,
    ]
    reasons = np.select(conditions, np.arange(1, len(conditions) + 1), 0)
    path = '' if dataset is None else dataset.ann_file
    found = Annotations(images, names, entries, rows, boxes, sizes, reasons, crowd, path)
    if dataset is not None:
        # An image with objects of a class is not empty, even if MMDetection drops all of them.
        _filter_images(found, dataset, np.bincount(rows[~conditions[0]], minlength=len(images)))
    return found


def _filter_images(found: Annotations, dataset: BaseDataset, objects: np.ndarray) -> None:
    """Drop the images that ``filter_cfg`` drops, with their objects."""
    options = None if dataset.test_mode else dataset.filter_cfg
    if options is None:
        return
    min_size = options.get('min_size', 0)
    small = f'below {min_size} pixels (filter_cfg.min_size)'
    for row, (image, count) in enumerate(zip(found.images.values(), objects.tolist(), strict=True)):
        if options.get('filter_empty_gt') and not count:
            found.dropped_images['without annotations'] += 1
        elif min(image['width'], image['height']) < min_size:
            found.dropped_images[small] += 1
            found.dropped += Counter({f'in images {small}': int(found.objects[row])})
            found.objects[row] = 0
