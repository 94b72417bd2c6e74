"""Find and repair the defects of COCO files that exporters write and MMDetection cannot read.

Supported are the files of Roboflow, CVAT, labelme2coco, VIA and Label Studio. The table of defects is
:data:`mmstvit.rules.coco_defects.DEFECTS`. One pass over the file repairs what it can and notes every defect, so that
the findings and the repair cannot disagree.
"""

import posixpath
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from os import PathLike

from .coco_annotations import AnnotationRepair, References
from .coco_defects import MISSING, Notes
from .coco_values import to_id, to_number, to_size
from .findings import Finding, refuse
from .image_folder import ImageFolder
from .kinds import FAULT, WARNING
from .masks import ROUNDING, extent, overhang

__all__ = ['find_defects', 'repair']

_LISTS = ('images', 'annotations', 'categories')
_SAMPLE = 1000  # images whose headers are read to find defects, evenly spaced
# Keys of other formats -> their names.
_OTHERS = {'shapes': 'labelme', '_via_img_metadata': 'VIA'}


def find_defects(
    content: object,
    image_folder: str | PathLike | None = None,
    *,
    evaluated: bool = True,
    turns: bool = True,
) -> list[Finding]:
    """Find what MMDetection cannot read in a COCO annotation file.

    Args:
        content: The parsed JSON, which may be anything.
        image_folder: Folder of the images, for the paths in ``file_name``.
        evaluated: False if the file is for training alone, which does not need ``iscrowd``.
        turns: True if the pipeline applies the EXIF orientation.

    Returns:
        A finding for each kind of defect, causes before consequences, with ``where`` left empty.
    """
    return _Repair(content, ImageFolder(image_folder, turns), evaluated, _SAMPLE).notes.findings()


def repair(content: object, image_folder: str | PathLike | None = None) -> tuple[dict, list[str]]:
    """Repair the defects of a COCO annotation file.

    Args:
        content: The parsed JSON, which is not modified.
        image_folder: Folder of the images, for paths and sizes.

    Returns:
        The repaired content, which shares its unchanged entries with ``content``, and a line for each kind of change.

    Raises:
        DataError: A defect cannot be repaired without guessing; the message names all of those.
    """
    repaired = _Repair(content, ImageFolder(image_folder), True, None)
    refuse([finding for finding in repaired.notes.findings((False,)) if finding.severity == FAULT])
    return repaired.content, repaired.notes.changes()


class _Repair:
    """Repair of a COCO annotation file, with a note of each defect; ``content`` is sound if none is beyond repair."""

    def __init__(self, content: object, folder: ImageFolder, evaluated: bool, sample: int | None) -> None:
        self.notes = Notes()
        self.content: dict = {}
        if problem := _name_format(content):
            self.notes.add('invalid annotation file', problem, repaired=False)
            return
        images, entries, categories = (content.get(name) for name in _LISTS)
        if entries is None:
            self.notes.add('no list of annotations')
        if categories is None:
            self.notes.add('no list of categories', repaired=False)
        self._folder = folder
        self._entries = entries or []
        self._images, self._categories = References('images'), References('categories', categories is not None)
        self.notes.totals = dict(images=len(images), annotations=len(self._entries), categories=len(categories or []))
        categories = self._repair_categories(categories or [])
        images = self._repair_images(images)
        annotations = AnnotationRepair(self._entries, self._images, self._categories, self.notes, evaluated).run()
        images = self._repair_sizes(images, annotations, sample)
        self.content = {**content, 'images': images, 'annotations': annotations, 'categories': categories}

    # Categories

    def _repair_categories(self, entries: list) -> list[dict]:
        by_key: dict[object, dict] = {}
        for entry in entries:
            key, name = _fields(entry, 'name')
            if key is None or (to_number(name) is None and not isinstance(name, str)):
                self.notes.add('invalid category', entry, repaired=False)
                continue
            if not isinstance(name, str):
                self.notes.add('category name is a number', name, example=f'id {key!r}')
                entry = {**entry, 'name': str(name)}
            first = by_key.setdefault(key, entry)
            if first is not entry:
                names = first['name'], entry['name']
                self.notes.add('one category id twice', entry['id'], *names, repaired=names[0] == names[1])
        by_name: dict[str, list] = {}
        for key, entry in by_key.items():
            by_name.setdefault(entry['name'], []).append(key)
        for name, keys in by_name.items():
            if len(keys) > 1:
                self._repair_same_name(name, keys, by_key)
        for entry in by_key.values():
            self._categories.add(entry['id'])
        return list(by_key.values())

    def _repair_same_name(self, name: str, keys: list, by_key: dict[object, dict]) -> None:
        """Remove categories without annotations from those that have one name."""
        unused = [key for key in keys if not self._used[key]]
        unused = unused[1:] if len(unused) == len(keys) else unused
        counts = ', '.join(f'id {by_key[key]["id"]!r}: {self._used[key]} annotations' for key in keys)
        repaired = len(keys) - len(unused) == 1
        self.notes.add('two categories of one name', name, len(keys), counts, repaired=repaired)
        for key in unused if repaired else ():
            del by_key[key]

    @cached_property
    def _used(self) -> Counter:
        """Number of annotations by category."""
        return Counter(to_id(entry.get('category_id')) for entry in self._entries if isinstance(entry, dict))

    # Images

    def _repair_images(self, entries: list) -> list[dict]:
        by_key: dict[object, str] = {}  # id -> file
        by_file: dict[str, tuple[dict, str, str]] = {}  # file -> entry, name and kind of its defect
        for entry in entries:
            key, name = _fields(entry, 'file_name')
            if key is None or not isinstance(name, str) or not name:
                self.notes.add('invalid image entry', entry, repaired=False)
                if key is not None:
                    self._images.add(entry['id'])
                continue
            kind, found = self._folder.find(name)
            file = posixpath.normpath(found or name) if '//' in name or './' in name else found or name
            if key in by_key:
                same = by_key[key] == file
                self.notes.add('duplicate image id', entry['id'], by_key[key], file, example=name, repaired=same)
                continue
            by_key[key] = file
            first, first_name, first_kind = by_file.get(file, (None, name, ''))
            if (kind or first_kind) and name.replace('\\', '/') != first_name.replace('\\', '/'):
                # Files of one base name in two folders were found as the same file.
                self.notes.add(kind or first_kind, name, f' (like {first_name!r})', example=name, repaired=False)
                self._images.add(entry['id'])
                continue
            if kind:
                where = f' (the file is {found!r})' if found else ''
                self.notes.add(kind, name, where, example=name, repaired=found is not None)
                entry = {**entry, 'file_name': found or name}
            entry = self._repair_size(entry)
            if first is None:
                by_file[file] = entry, name, kind
                self._images.add(entry['id'])
            else:
                same = all(first.get(side) == entry.get(side) for side in ('width', 'height'))
                self.notes.add('duplicate file', file, first['id'], entry['id'], example=name, repaired=same)
                self._images.merge(entry['id'], first['id'])
        return [entry for entry, _, _ in by_file.values()]

    def _repair_size(self, entry: dict) -> dict:
        """Return an image entry with whole numbers for width and height."""
        if _has_size(entry):
            return entry
        shown = [entry.get(side, MISSING) for side in ('width', 'height')]
        size = to_size(shown[0]), to_size(shown[1])
        if None in size:
            size = self._folder.size(entry['file_name'])
        self.notes.add('invalid image size', *shown, example=entry['file_name'], repaired=size is not None)
        return entry if size is None else {**entry, 'width': size[0], 'height': size[1]}

    def _repair_sizes(self, images: list[dict], annotations: list[dict], sample: int | None) -> list[dict]:
        """Compare width and height with the files; take those of the file where all annotations lie inside."""
        checked = images if sample is None else images[:: -(-len(images) // sample) or 1]
        wrong: dict[object, tuple[int, int]] = {}
        for image in checked:
            size = self._folder.size(image['file_name'])
            if size is not None and _has_size(image) and size != (image['width'], image['height']):
                wrong[image['id']] = size
        if not wrong:
            return images
        self.notes.totals['checked images'] = len(checked)
        outside = {a['image_id'] for a in annotations if a['image_id'] in wrong and not _fits(a, wrong[a['image_id']])}
        severity = FAULT if any(annotation.get('segmentation') for annotation in annotations) else WARNING
        # One image alone shows nothing: small objects fit into any size.
        doubtful = {_relation(i, wrong[i['id']]) for i in checked if i['id'] in outside} | {'resized'}
        repaired = []
        for image in images:
            if size := wrong.get(image['id']):
                value = f'{image["file_name"]}: {image["width"]}×{image["height"]}, the file is {size[0]}×{size[1]}'
                sound = _relation(image, size) not in doubtful
                self.notes.add('wrong sizes in annotations', value, example=value, repaired=sound, severity=severity)
                image = {**image, 'width': size[0], 'height': size[1]} if sound else image
            repaired.append(image)
        return repaired


def _fields(entry: object, name: str) -> tuple[object, object]:
    """Return the id of an entry in a form that can be compared, and another field; None if they are not there."""
    return (to_id(entry.get('id')), entry.get(name)) if isinstance(entry, dict) else (None, None)


def _has_size(image: Mapping) -> bool:
    """Return True if width and height are whole numbers above 0."""
    return all(type(side) is int and side > 0 for side in (image.get('width'), image.get('height')))


def _name_format(content: object) -> str:
    """Return the reason why a file is not a COCO annotation file; empty if it is one."""
    if not isinstance(content, Mapping):
        return f'the file holds a {type(content).__name__}, expected an object with images, annotations and categories.'
    wrong = [name for name in _LISTS if not isinstance(content.get(name, []), (list, type(None)))]
    if wrong:
        return f'{wrong[0]} is a {type(content[wrong[0]]).__name__}, expected a list.'
    if content.get('images') is None:
        other = next((f' It looks like a file of {name}.' for key, name in _OTHERS.items() if key in content), '')
        return f'the file has no list images.{other}'
    return ''


def _fits(annotation: Mapping, size: tuple[int, int]) -> bool:
    """Return True if an annotation lies inside an image of this (width, height)."""
    x, y, width, height = annotation['bbox']
    mask = annotation.get('segmentation')
    corners = [(x, y, x + width, y + height)]
    if isinstance(mask, dict):
        if mask['size'] != [size[1], size[0]]:
            return False
    elif mask:
        corners.append(extent(mask))
    return all(overhang(*corner, size[1], size[0]) <= ROUNDING for corner in corners)


def _relation(image: Mapping, size: tuple[int, int]) -> str:
    """Name the relation of the annotated size to that of the file."""
    width, height = image['width'], image['height']
    if (height, width) == size:
        return 'exchanged'
    if max(abs(width - size[0]), abs(height - size[1])) <= ROUNDING:
        return 'rounded'
    return 'resized' if abs(width / size[0] / (height / size[1]) - 1) < 0.01 else 'other'
