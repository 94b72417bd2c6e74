"""Split a COCO annotation file into training and validation by image."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from os import PathLike

from mmstvit.errors import DataError


def split_by_image(
    content: Mapping, image_folder: str | PathLike | None = None, fraction: float = 0.2, seed: int = 0
) -> tuple[dict, dict]:
    """Split the images of a COCO annotation file, the same way every time.

    Images with equal files are on one side. Every class is on both sides if two different images have it; validation
    may become larger than ``fraction`` for that. The order of the lists in the file does not matter.

    Args:
        content: A sound annotation file, see :func:`mmstvit.rules.coco_format.repair`.
        image_folder: Folder of the images, to compare files; without, each name is an image of its own.
        fraction: Part of the images for validation, between 0 and 1.
        seed: Another number gives another split.

    Returns:
        The contents for training and for validation, which share their entries with ``content``.

    Raises:
        DataError: There are fewer than two different images.
    """
    groups: dict[bytes, list] = defaultdict(list)
    for image in content['images']:
        groups[_digest(image['file_name'], image_folder, seed)].append(image['id'])
    if len(groups) < 2:
        raise DataError(
            f'{len(content["images"])} images with {len(groups)} different contents cannot be split into training and '
            f'validation.',
            'Add images, or name annotations for validation.',
        )
    classes: dict[object, set] = defaultdict(set)  # of each image
    for annotation in content['annotations']:
        if not annotation.get('iscrowd'):
            classes[annotation['image_id']].add(annotation['category_id'])
    of_group = {key: set().union(*(classes[i] for i in groups[key])) for key in sorted(groups)}
    sizes = {key: len(ids) for key, ids in groups.items()}
    chosen = {i for key in _choose(of_group, sizes, fraction * len(content['images'])) for i in groups[key]}
    return _select(content, chosen, inside=False), _select(content, chosen, inside=True)


def _choose(classes: Mapping[bytes, set], sizes: Mapping[bytes, int], wanted: float) -> list[bytes]:
    """Choose groups of images for validation.

    Args:
        classes: Classes of each group, in the order in which groups are tried.
        sizes: Number of images of each group.
        wanted: Number of images for validation.
    """
    left = Counter(name for names in classes.values() for name in names)  # groups for training, by class
    shared = {name for name, count in left.items() if count > 1}
    chosen: dict[bytes, None] = {}  # in the order of choice
    taken = 0

    def take(key: bytes) -> None:
        nonlocal taken
        chosen[key] = None
        taken += sizes[key]
        left.subtract(classes[key])

    def is_safe(key: bytes) -> bool:
        return all(left[name] > 1 for name in classes[key]) and len(chosen) < len(classes) - 1

    missing = set(shared)
    while missing:  # the group with most of the classes that validation lacks
        safe = [key for key in classes if key not in chosen and classes[key] & missing and is_safe(key)]
        if not safe:
            break
        best = max(safe, key=lambda key: len(classes[key] & missing))
        take(best)
        missing -= classes[best]
    for key in classes:
        if taken + sizes[key] / 2 <= wanted and key not in chosen and is_safe(key):
            take(key)
    if not chosen:  # every image has a class of its own
        take(min(classes, key=lambda key: len(classes[key])))
    return list(chosen)


def _select(content: Mapping, chosen: set, inside: bool) -> dict:
    """Return the part of a file whose images are among the chosen ones, or not."""
    images = [image for image in content['images'] if (image['id'] in chosen) is inside]
    annotations = [entry for entry in content['annotations'] if (entry['image_id'] in chosen) is inside]
    return {**content, 'images': images, 'annotations': annotations}


def _digest(name: str, folder: str | PathLike | None, seed: int) -> bytes:
    """Return a digest of an image's file, of its name if it cannot be read."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=16)
    try:
        with open(os.path.join(folder, name), 'rb') as file:
            digest.update(file.read())
    except (OSError, TypeError, ValueError):
        digest.update(name.encode(errors='surrogatepass'))
    return digest.digest()
