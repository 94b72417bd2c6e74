"""COCO annotation files as MMDetection reads them, with the annotations that it drops without a message."""

import contextlib
import gc
import json
import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from numbers import Real

import orjson
from mmengine import fileio
from mmengine.dataset import BaseDataset

from mmstvit.errors import DataError

from .images import find_loaders


def is_coco(dataset: BaseDataset | type) -> bool:
    """Return True if a dataset, or a class of datasets, reads COCO annotation files as MMDetection's CocoDataset."""
    load = getattr(dataset, 'load_data_list', None)
    return getattr(load, '__module__', '') == 'mmdet.datasets.coco' and load.__qualname__.startswith('CocoDataset.')


def read_json(dataset: BaseDataset) -> object:
    """Read the annotation file of a dataset.

    Raises:
        DataError: The file is not JSON.
    """
    try:
        content = fileio.get(dataset.ann_file, backend_args=dataset.backend_args)
        with paused_garbage_collection():
            return parse_json(content)
    except (OSError, ValueError) as error:
        raise DataError(
            f'{dataset.ann_file} is not valid JSON: {error}.', 'Use a JSON file in the COCO format (instances).'
        ) from error


def parse_json(content: bytes) -> object:
    """Parse JSON as Python's own parser does, several times faster; raises ValueError."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:  # not valid, or with NaN, Infinity or half a surrogate pair, which Python accepts
        return json.loads(content.decode())


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pause garbage collection, which takes a third of the time of parsing a large annotation file."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def first_names(names: Iterable[object], shown: int = 5) -> str:
    """Join the first of many names for a message."""
    names = list(names)
    return ', '.join(map(repr, names[:shown])) + (', …' if len(names) > shown else '')


def is_box(box: object) -> bool:
    """Return True if a ``bbox`` is a list of four finite numbers."""
    return isinstance(box, (list, tuple)) and len(box) == 4 and all(map(is_finite, box))


def is_finite(value: object) -> bool:
    """Return True for a finite real number."""
    return isinstance(value, Real) and math.isfinite(value)


def is_polygon(polygon: object) -> bool:
    """Return True if MMDetection uses a polygon: pairs of numbers, three or more."""
    return isinstance(polygon, (list, tuple)) and len(polygon) >= 6 and len(polygon) % 2 == 0


def drop_reason(annotation: Mapping, image: Mapping | None, learned: bool, with_mask: bool) -> str:
    """Return the first reason why MMDetection does not learn from an annotation; empty if it does.

    Args:
        annotation: The annotation.
        image: The entry of its image; None if the file has none.
        learned: True if its category is in ``metainfo.classes``.
        with_mask: True if the pipeline loads masks.
    """
    if image is None:
        return 'unknown image_id'
    if not learned:
        return 'category not in classes'
    if annotation.get('ignore'):
        return 'ignore=1'
    x, y, width, height = annotation['bbox']
    if annotation['area'] <= 0:
        return 'area 0'
    if width < 1 or height < 1:
        return 'box below 1 pixel'
    if x >= image['width'] or y >= image['height'] or x + width <= 0 or y + height <= 0:
        return 'outside the image'
    if annotation.get('iscrowd'):
        return 'crowd'
    if with_mask:
        mask = annotation.get('segmentation')
        if isinstance(mask, list) and mask and not any(map(is_polygon, mask)):
            return 'no valid polygon'
    return ''


@dataclass
class Annotations:
    """Content of a COCO annotation file, and the part of it that MMDetection uses.

    Args:
        path: The file.
        images: Entries of the images by id.
        names: Names of the categories by id.
        entries: The annotations.
        learned: Ids of the categories that are in ``metainfo.classes``.
        with_mask: True if the pipeline loads masks.
        per_category: Number of annotations of each category id.
        objects: Number of objects of each image that is used.
        dropped: Number of annotations by the reason why they are dropped.
        dropped_images: Number of images by the reason why they are dropped.
    """

    path: str
    images: dict[object, Mapping]
    names: dict[object, str]
    entries: list[Mapping]
    learned: set
    with_mask: bool
    per_category: Counter = field(default_factory=Counter)
    objects: Counter = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_images: Counter[str] = field(default_factory=Counter)

    @property
    def used(self) -> int:
        """Number of annotations that are used."""
        return self.objects.total()

    def drop_reason(self, annotation: Mapping) -> str:
        """Return the reason why an annotation is dropped, apart from its whole image; empty if it is used."""
        image, learned = self.images.get(annotation['image_id']), annotation['category_id'] in self.learned
        return drop_reason(annotation, image, learned, self.with_mask)

    def summary(self) -> str:
        """Write what is used, and what is dropped for which reason, in one line."""
        images = len(self.images)
        used = f'{self.used} of {len(self.entries)} annotations'
        used += f' in {images - self.dropped_images.total()} of {images} images'
        dropped = ', '.join(f'{count} {reason}' for reason, count in self.dropped.most_common())
        lost = ', '.join(f'{count} {reason}' for reason, count in self.dropped_images.most_common())
        lost = lost and f'images: {lost}'
        return used + (f' (dropped: {"; ".join(filter(None, (dropped, lost)))})' if dropped or lost else '')


def summarize(content: Mapping, dataset: BaseDataset) -> Annotations:
    """Count what MMDetection uses of an annotation file whose entries have all fields.

    Args:
        content: The file.
        dataset: The dataset, for its classes, filters and pipeline; its samples need not be loaded.
    """
    classes = set(dataset.metainfo.get('classes', ()))
    names = {category['id']: category['name'] for category in content['categories']}
    learned = {key for key, name in names.items() if name in classes}
    with_mask = any(getattr(loader, 'with_mask', False) for loader in find_loaders(dataset.pipeline))
    images = {image['id']: image for image in content['images']}
    found = Annotations(dataset.ann_file, images, names, content.get('annotations') or [], learned, with_mask)
    found.per_category.update(map(operator.itemgetter('category_id'), found.entries))
    with_objects = set()  # of a category in classes, even if MMDetection drops them
    used = []
    for annotation in found.entries:
        image_id, is_learned = annotation['image_id'], annotation['category_id'] in learned
        if is_learned:
            with_objects.add(image_id)
        if reason := drop_reason(annotation, images.get(image_id), is_learned, with_mask):
            found.dropped[reason] += 1
        else:
            used.append(image_id)
    found.objects.update(used)
    _filter_images(found, dataset, with_objects)
    return found


def _filter_images(found: Annotations, dataset: BaseDataset, with_objects: set) -> None:
    """Drop the images that ``filter_cfg`` drops, with their objects."""
    options = None if dataset.test_mode else dataset.filter_cfg
    if options is None:
        return
    min_size = options.get('min_size', 0)
    small = f'below {min_size} pixels (filter_cfg.min_size)'
    for key, image in found.images.items():
        if options.get('filter_empty_gt') and key not in with_objects:
            found.dropped_images['without annotations'] += 1
        elif min(image['width'], image['height']) < min_size:
            found.dropped_images[small] += 1
            if count := found.objects.pop(key, 0):
                found.dropped[f'in images {small}'] += count


def explain_unusable(annotations: Annotations, classes: Iterable[str]) -> tuple[str, str]:
    """Explain why an annotation file has no usable object; returns the problem and a remedy."""
    path, total = annotations.path, len(annotations.entries)
    if not total:
        problem = f'{path} has {len(annotations.images)} images and no annotation.'
        return problem, 'Set ann_file to a file with annotations.'
    if not annotations.learned:
        problem = (
            f'{path}: none of its categories ({first_names(annotations.names.values())}) is in metainfo.classes '
            f'({first_names(classes)}).'
        )
        return problem, 'Set metainfo=dict(classes=(...)) of the dataset to the names in the file, in their order.'
    counts = ', '.join(f'{count} {reason}' for reason, count in annotations.dropped.most_common())
    problem = f'none of the {total} annotations in {path} is used: {counts}.'
    return problem, 'Correct the annotations, or set ann_file to other ones.'
