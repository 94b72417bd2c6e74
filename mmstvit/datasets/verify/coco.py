"""Check COCO annotation files themselves, including the annotations that MMDetection drops without a message."""

import os
from collections import Counter, defaultdict
from collections.abc import Mapping

from mmengine.dataset import BaseDataset

from mmstvit.errors import DataError

from ..coco import first_names, is_box, is_empty, is_finite, read_annotation_file, unknown_categories
from ..images import Reader
from .findings import Finding
from .sample import Sample

_IMAGE_FIELDS = ('id', 'file_name', 'height', 'width')
_ANNOTATION_FIELDS = ('id', 'image_id', 'category_id', 'bbox', 'area')
_CATEGORY_FIELDS = ('id', 'name')


def collect_coco(
    dataset: BaseDataset, reader: Reader, with_mask: bool, findings: list[Finding]
) -> tuple[list[Sample], int]:
    """Collect the samples of an annotation file.

    Args:
        dataset: The dataset, for its paths and classes; its own parsing is not used.
        reader: How the pipeline reads images.
        with_mask: If True, each annotation needs a mask.
        findings: List to which findings about the file are added.

    Returns:
        The samples, and the number of annotations in the file.
    """
    path = dataset.ann_file
    try:
        content = read_annotation_file(dataset)
    except DataError as error:
        findings.append(Finding('invalid annotation file', path, error.problem))
        return [], 0
    classes = list(dataset.metainfo.get('classes', ()))
    names = _check_categories(path, content['categories'], classes, findings)
    images = _check_images(path, content['images'], findings)
    annotations = _check_annotations(path, content['annotations'], images, names, classes, findings)
    samples = []
    for image_id, image in images.items():
        file = os.path.join(dataset.data_prefix['img'], image['file_name'])
        used = []
        for annotation in annotations[image_id]:
            if is_box(annotation['bbox']) and is_empty(annotation):
                message = f'annotation {annotation["id"]}: bbox {annotation["bbox"]}, area {annotation["area"]}'
                findings.append(Finding('empty box', file, message))
            elif not annotation.get('ignore'):  # MMDetection drops these, too
                used.append(annotation)
        if not annotations[image_id]:
            findings.append(Finding('no annotation', file, f'{path} has no annotation of it'))
        samples.append(Sample(file, reader, (image['height'], image['width']), used, with_mask))
    return samples, len(content['annotations'])


def _missing_fields(entry: object, fields: tuple[str, ...]) -> str:
    """Describe the fields that an entry lacks; empty if it has all."""
    missing = [name for name in fields if not isinstance(entry, Mapping) or name not in entry]
    return f'{entry!r:.80} has no {", ".join(missing)}' if missing else ''


def _check_categories(path: str, categories: list, classes: list[str], findings: list[Finding]) -> dict[object, str]:
    """Check the categories; returns names by id.

    MMDetection numbers labels in the order of the file, and takes names from ``metainfo.classes``.
    """
    names: dict[object, str] = {}
    for category in categories:
        if missing := _missing_fields(category, _CATEGORY_FIELDS):
            findings.append(Finding('invalid category', path, missing))
        elif category['id'] in names:
            message = f'{category["name"]!r} and {names[category["id"]]!r} both have id {category["id"]}'
            findings.append(Finding('duplicate category', path, message))
        else:
            names[category['id']] = category['name']
    known = [name for name in names.values() if name in classes]
    if names and not known:
        findings.append(Finding('no matching category', path, unknown_categories(names.values(), classes)[0]))
    elif known != classes[: len(known)]:
        label = next(i for i, name in enumerate(known) if name != classes[i])
        message = f'label {label} is {known[label]!r} in the file, but {classes[label]!r} in metainfo.classes'
        findings.append(Finding('order of categories', path, message))
    elif known != classes:
        message = f'{first_names(classes[len(known) :])} of metainfo.classes is not in the file'
        findings.append(Finding('class without category', path, message))
    return names


def _check_images(path: str, images: list, findings: list[Finding]) -> dict[object, Mapping]:
    """Check the list of images; returns the valid ones by id."""
    found: dict[object, Mapping] = {}
    for image in images:
        if missing := _missing_fields(image, _IMAGE_FIELDS):
            findings.append(Finding('invalid image entry', path, missing))
        elif image['id'] in found:
            other = found[image['id']]['file_name']
            message = f'{image["file_name"]} and {other} both have id {image["id"]}; MMDetection keeps one of them'
            findings.append(Finding('duplicate image id', path, message))
        else:
            found[image['id']] = image
    return found


def _check_annotations(
    path: str,
    annotations: list,
    images: Mapping[object, Mapping],
    names: Mapping[object, str],
    classes: list[str],
    findings: list[Finding],
) -> dict[object, list[Mapping]]:
    """Check the list of annotations; returns the valid ones by image id."""
    found = defaultdict(list)
    ids: set[object] = set()
    unused: Counter[str] = Counter()
    for annotation in annotations:
        if missing := _missing_fields(annotation, _ANNOTATION_FIELDS):
            findings.append(Finding('invalid annotation', path, missing))
            continue
        label = f'annotation {annotation["id"]}'
        if annotation['id'] in ids:
            findings.append(Finding('duplicate annotation id', path, f'{label} occurs twice'))
        ids.add(annotation['id'])
        if annotation['category_id'] not in names:
            message = f'{label}: category_id {annotation["category_id"]} is not in categories'
            findings.append(Finding('unknown category', path, message))
        elif names[annotation['category_id']] not in classes:
            unused[names[annotation['category_id']]] += 1
        if not is_finite(annotation['area']):
            findings.append(Finding('invalid annotation', path, f'{label}: area is {annotation["area"]!r}'))
        elif annotation['image_id'] in images:
            found[annotation['image_id']].append(annotation)
        else:
            message = f'{label}: image_id {annotation["image_id"]} is not in images'
            findings.append(Finding('unknown image id', path, message))
    for name, count in unused.items() if set(names.values()) & set(classes) else ():  # else reported as a fault
        message = f'{name!r} is not in metainfo.classes: MMDetection drops its {count} annotations'
        findings.append(Finding('unused category', path, message))
    return found
