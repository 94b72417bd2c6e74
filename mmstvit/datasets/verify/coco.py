"""COCO's annotation files, read as they are: MMDetection drops what it cannot use without a word."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping

from mmengine import fileio
from mmengine.dataset import BaseDataset

from ..usable import some
from .faults import Fault
from .sample import Reader, Sample

_LISTS = ('images', 'annotations', 'categories')


def collect_coco(leaf: BaseDataset, reader: Reader, with_mask: bool, faults: list[Fault]) -> tuple[list[Sample], int]:
    """What an annotation file lists.

    Args:
        leaf: The dataset, for its paths and classes; its annotations are not used.
        reader: How images are read.
        with_mask: Whether every annotation needs a mask.
        faults: Where faults of the file as a whole go.

    Returns:
        The images, and the number of annotations.
    """
    path = leaf.ann_file
    try:
        content = fileio.load(path, file_format='json', backend_args=leaf.backend_args)
    except (OSError, ValueError) as error:
        faults.append(Fault('bad annotation file', path, f'it is no JSON: {error}'))
        return [], 0
    missing = [key for key in _LISTS if not isinstance(content, Mapping) or not isinstance(content.get(key), list)]
    if missing:
        faults.append(
            Fault('bad annotation file', path, f'it has no list {", ".join(missing)}; is it of another kind?')
        )
        return [], 0
    names = _check_categories(path, content['categories'], list(leaf.metainfo.get('classes', ())), faults)
    images = _check_images(path, content['images'], faults)
    annotations = _check_annotations(path, content['annotations'], images, names, leaf, faults)
    samples = []
    for image_id, image in images.items():
        file = os.path.join(leaf.data_prefix['img'], image['file_name'])
        if not annotations[image_id]:
            faults.append(Fault('no annotation', file, f'none in {path}', warning=True))
        size = image['height'], image['width']
        samples.append(Sample(file, reader, size, annotations[image_id], with_mask))
    return samples, len(content['annotations'])


def _check_categories(path: str, categories: list, classes: list[str], faults: list[Fault]) -> dict[object, str]:
    """Names by id. MMDetection numbers labels in the order of the file, and takes names from metainfo.classes."""
    names: dict[object, str] = {}
    for category in categories:
        if not isinstance(category, Mapping) or not {'id', 'name'} <= set(category):
            faults.append(Fault('bad category', path, f'{category!r} has no id or no name'))
        elif category['id'] in names:
            faults.append(Fault('duplicate category', path, f'id {category["id"]} is of two categories'))
        else:
            names[category['id']] = category['name']
    known = [name for name in names.values() if name in classes]
    if names and not known:
        message = f'no category of the file ({some(names.values())}) is in metainfo.classes ({some(classes)})'
        faults.append(Fault('unknown categories', path, message))
    elif known != classes[: len(known)]:
        i = next(i for i, name in enumerate(known) if name != classes[i])
        message = f'label {i} is {known[i]!r} in the order of the file, which counts, but metainfo.classes has '
        faults.append(Fault('order of categories', path, f'{message}{classes[i]!r} there'))
    elif known != classes:
        message = f'metainfo.classes has {some(classes[len(known) :])}, the file has not'
        faults.append(Fault('class without category', path, message, warning=True))
    return names


def _check_images(path: str, images: list, faults: list[Fault]) -> dict[object, Mapping]:
    """The images by id, without those that cannot be looked at."""
    found: dict[object, Mapping] = {}
    for image in images:
        if not isinstance(image, Mapping) or not {'id', 'file_name', 'height', 'width'} <= set(image):
            faults.append(Fault('bad image entry', path, f'{image!r} has no id, file_name, height or width'))
        elif image['id'] in found:
            other = found[image['id']]['file_name']
            message = f'{image["file_name"]} and {other} both have id {image["id"]}; MMDetection keeps one'
            faults.append(Fault('duplicate image id', path, message))
        else:
            found[image['id']] = image
    return found


def _check_annotations(
    path: str,
    annotations: list,
    images: Mapping[object, Mapping],
    names: Mapping[object, str],
    leaf: BaseDataset,
    faults: list[Fault],
) -> dict[object, list[Mapping]]:
    """The annotations by image, without those of no image."""
    found = defaultdict(list)
    ids: set[object] = set()
    dropped: Counter[str] = Counter()
    for annotation in annotations:
        if not isinstance(annotation, Mapping) or not {'id', 'image_id', 'category_id'} <= set(annotation):
            faults.append(Fault('bad annotation', path, f'{annotation!r:.80} has no id, image_id or category_id'))
            continue
        label = f'annotation {annotation["id"]}'
        if annotation['id'] in ids:
            faults.append(Fault('duplicate annotation id', path, label))
        ids.add(annotation['id'])
        if annotation['category_id'] not in names:
            message = f'{label}: category_id {annotation["category_id"]} is not in categories'
            faults.append(Fault('unknown category', path, message))
        elif names[annotation['category_id']] not in leaf.metainfo.get('classes', ()):
            dropped[names[annotation['category_id']]] += 1
        if annotation['image_id'] in images:
            found[annotation['image_id']].append(annotation)
        else:
            message = f'{label}: image_id {annotation["image_id"]} is not in images'
            faults.append(Fault('unknown image id', path, message))
    for name, count in dropped.items():
        message = f'{name!r} is not in metainfo.classes: its {count} annotations are dropped'
        faults.append(Fault('unused category', path, message, warning=True))
    return found
