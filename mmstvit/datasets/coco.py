"""COCO annotation files as MMDetection reads them, with the annotations that it drops without a message."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from numbers import Real

from mmengine import fileio
from mmengine.dataset import BaseDataset

from mmstvit.errors import DataError

_LISTS = ('images', 'annotations', 'categories')


def is_coco(dataset: BaseDataset | type) -> bool:
    """Return True if a dataset, or a class of datasets, reads COCO annotation files as MMDetection's CocoDataset."""
    load = getattr(dataset, 'load_data_list', None)
    return getattr(load, '__module__', '') == 'mmdet.datasets.coco' and load.__qualname__.startswith('CocoDataset.')


def read_annotation_file(dataset: BaseDataset) -> dict[str, list]:
    """Read the annotation file of a COCO dataset.

    Raises:
        DataError: The file is not JSON, or lacks one of the lists of COCO's format.
    """
    try:
        content = fileio.load(dataset.ann_file, file_format='json', backend_args=dataset.backend_args)
    except (OSError, ValueError) as error:
        raise DataError(f'{dataset.ann_file} is not valid JSON: {error}.') from error
    missing = [key for key in _LISTS if not isinstance(content, Mapping) or not isinstance(content.get(key), list)]
    if missing:
        raise DataError(f'{dataset.ann_file} is not a COCO annotation file: it has no list {", ".join(missing)}.')
    return content


def first_names(names: Iterable[object], shown: int = 5) -> str:
    """Join the first of many names for a message."""
    names = list(names)
    return ', '.join(map(repr, names[:shown])) + (', …' if len(names) > shown else '')


def unknown_categories(names: Iterable[str], classes: Iterable[str]) -> tuple[str, str]:
    """Return the problem, and its remedy, of a file without a category of ``metainfo.classes``."""
    return (
        f'none of its categories ({first_names(names)}) is in metainfo.classes ({first_names(classes)}).',
        'Set metainfo=dict(classes=(...)) of the dataset to the names in the file, in their order.',
    )


def is_box(box: object) -> bool:
    """Return True if a ``bbox`` is a list of four finite numbers."""
    return isinstance(box, (list, tuple)) and len(box) == 4 and all(map(is_finite, box))


def is_finite(value: object) -> bool:
    """Return True for a finite real number."""
    return isinstance(value, Real) and math.isfinite(value)


def is_polygon(polygon: object) -> bool:
    """Return True if MMDetection uses a polygon: pairs of numbers, three or more."""
    return isinstance(polygon, (list, tuple)) and len(polygon) >= 6 and len(polygon) % 2 == 0


def is_empty(annotation: Mapping) -> bool:
    """Return True if MMDetection drops an annotation because its area is 0 or its box is less than 1 pixel in size."""
    _, _, width, height = annotation['bbox']
    return width < 1 or height < 1 or annotation['area'] <= 0


def explain_unusable(dataset: BaseDataset) -> tuple[str, str]:
    """Explain from the annotation file why a COCO dataset has no usable object; returns the problem and a remedy."""
    content = read_annotation_file(dataset)
    images = {image['id'] for image in content['images']}
    annotations = content['annotations']
    if not annotations:
        problem = f'{dataset.ann_file} has {len(images)} images and no annotation.'
        return problem, 'Set ann_file to a file with annotations.'
    classes = dataset.metainfo['classes']
    names = {category['id']: category['name'] for category in content['categories']}
    if not set(names.values()) & set(classes):
        problem, remedy = unknown_categories(names.values(), classes)
        return f'{dataset.ann_file}: {problem}', remedy
    reasons = Counter(_why_unusable(annotation, images, names, classes) for annotation in annotations)
    counts = ', '.join(f'{count} {reason}' for reason, count in reasons.most_common())
    problem = f'of the {len(annotations)} annotations in {dataset.ann_file}: {counts}.'
    return problem, 'Correct the annotations, or set ann_file to other ones.'


def _why_unusable(annotation: Mapping, images: set, names: Mapping, classes: Iterable[str]) -> str:
    """Return the first of MMDetection's conditions that an annotation does not meet."""
    if annotation['image_id'] not in images:
        return 'with an image_id that is not in the file'
    if names.get(annotation['category_id']) not in classes:
        return 'of a category that is not in metainfo.classes'
    if annotation.get('iscrowd'):
        return 'crowd (iscrowd=1)'
    if annotation.get('ignore'):
        return 'ignored (ignore=1)'
    if is_empty(annotation):
        return 'with an empty box or area'
    return 'with a box outside the image, an invalid mask, or an image that filter_cfg drops'
