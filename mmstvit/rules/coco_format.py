"""Find and repair what exporters write into COCO files and MMDetection cannot read.

Supported are the files of Roboflow, CVAT, labelme2coco, VIA and Label Studio. One pass over the file repairs what it
can and notes every defect, so that the findings and the repair cannot disagree.
"""

import contextlib
import posixpath
import reprlib
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from math import isfinite
from os import PathLike

from mmstvit.datasets.coco import summarize
from mmstvit.datasets.importers.coco_table import bounding_box, extent

from .coco_notes import Notes
from .coco_values import (
    ROUNDING,
    are_polygons,
    is_inside,
    mask_area,
    repair_polygons,
    rle_areas,
    to_id,
    to_number,
    to_numbers,
    to_size,
)
from .findings import Finding, refuse
from .headers import thin_out
from .image_folder import ImageFolder
from .kinds import FAULT, WARNING

__all__ = ['find_defects', 'repair']

_LISTS = ('images', 'annotations', 'categories')
_SAMPLE = 1000  # images whose headers are read to find defects, evenly spaced
# Keys of other formats -> their names.
_OTHERS = {'shapes': 'labelme', '_via_img_metadata': 'VIA'}
_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring = 8, 8, 80


def find_defects(
    content: object,
    image_folder: str | PathLike | None = None,
    *,
    evaluated: bool = True,
    turns: bool = True,
    complete: bool = False,
) -> list[Finding]:
    """Find what MMDetection cannot read in a COCO annotation file.

    Args:
        content: The parsed JSON, which may be anything.
        image_folder: Folder of the images, for the paths in ``file_name``.
        evaluated: False if the file is for training alone, which does not need ``iscrowd``.
        turns: True if the pipeline applies the EXIF orientation.
        complete: Compare the sizes of all images with the files, not those of a thousand.

    Returns:
        A finding for each kind of defect, causes before consequences, with ``where`` left empty.
    """
    return _Repair(content, ImageFolder(image_folder, turns), evaluated, None if complete else _SAMPLE).notes.findings()


def repair(content: object, image_folder: str | PathLike | None = None) -> tuple[dict, list[str]]:
    """Repair the defects of a COCO annotation file; objects that training drops but evaluation counts are removed.

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
    repaired.remove_unlearned()
    return repaired.content, repaired.notes.changes()


class _Repair:
    """Repair of a COCO annotation file, with a note of each defect; ``content`` is sound if none is beyond repair."""

    def __init__(self, content: object, folder: ImageFolder, evaluated: bool, sample: int | None) -> None:
        self.content: dict = {}
        self._folder, self._evaluated = folder, evaluated
        self.notes = Notes()
        self._note = self.notes.add
        if problem := _name_format(content):
            self._note('invalid annotation file', problem, '', repaired=False)
            return
        if content.get('annotations') is None:
            self._note('no list of annotations', '', '')
        self._entries = content.get('annotations') or []
        self.notes.totals = {name: len(content.get(name) or ()) for name in _LISTS}
        # `to_id` of every way to write an id -> the id
        self._ids: dict[str, dict[object, object]] = dict(image_id={}, category_id={})
        categories = self._repair_categories(content['categories'])
        images = self._repair_images(content['images'])
        annotations = self._repair_annotations()
        images = self._repair_sizes(images, annotations, sample)
        self.content = {**content, 'images': images, 'annotations': annotations, 'categories': categories}

    def _repair_categories(self, entries: list) -> list[dict]:
        by_key: dict[object, dict] = {}
        by_name: dict[str, list] = {}
        for entry in entries:
            key, name = _fields(entry, 'name')
            if key is None or (to_number(name) is None and not isinstance(name, str)):
                self._note('missing field', _short(entry), 'categories', repaired=False)
                continue
            if not isinstance(name, str):
                self._note('value of another type', f'category {key!r}: name is {_short(name)}', 'categories')
                entry = {**entry, 'name': str(name)}
            first = by_key.setdefault(key, entry)
            if first is entry:
                by_name.setdefault(entry['name'], []).append(key)
            else:
                value = f'id {key!r} of {first["name"]!r} and {entry["name"]!r}'
                self._note('duplicate category', value, 'categories', first['name'] == entry['name'])
        used = Counter(to_id(entry.get('category_id')) for entry in self._entries if isinstance(entry, dict))
        for name, keys in by_name.items():
            kept = [key for key in keys if used[key]] or keys[:1]
            if len(keys) > 1:
                counts = ', '.join(f'id {by_key[key]["id"]!r}: {used[key]} annotations' for key in keys)
                self._note('duplicate category', f'{name!r}, {counts}', 'categories', len(kept) == 1)
            for key in keys if len(kept) == 1 else ():
                if key != kept[0]:
                    del by_key[key]
        self._ids['category_id'] = {key: entry['id'] for key, entry in by_key.items()}
        return list(by_key.values())

    def _repair_images(self, entries: list) -> list[dict]:
        by_key: dict[object, str] = {}  # id -> file
        by_file: dict[str, tuple[object, str, str]] = {}  # file -> id, name and what is wrong with the name
        repaired = []
        for entry in entries:
            key, name = _fields(entry, 'file_name')
            if key is not None:
                self._ids['image_id'].setdefault(key, entry['id'])
            if key is None or not isinstance(name, str) or not name:
                self._note('missing field', _short(entry), 'images', repaired=False)
                continue
            problem, found = self._folder.find(name)
            file = posixpath.normpath(found or name) if '//' in name or './' in name else found or name
            if key in by_key:
                value = f'id {entry["id"]!r} of {by_key[key]} and {file}'
                self._note('duplicate image', value, 'images', by_key[key] == file)
                continue
            by_key[key] = file
            first = by_file.setdefault(file, (key, name, problem))
            if first[0] != key:
                value = f'{name!r} of id {entry["id"]!r} and {first[1]!r} of id {first[0]!r} are found as {file}'
                # Two images of one name in two folders: the path of one is wrong.
                other = (problem or first[2]) and name.replace('\\', '/') != first[1].replace('\\', '/')
                self._note('wrong path in file_name' if other else 'duplicate image', value, 'images', repaired=False)
                continue
            if problem:
                value = f'{problem}: {name!r}' + (f', the file is {found!r}' if found else '')
                self._note('wrong path in file_name', value, 'images', found is not None)
                entry = {**entry, 'file_name': found or name}
            repaired.append(self._repair_size(entry))
        return repaired

    def _repair_size(self, entry: dict) -> dict:
        """Return an image entry with whole numbers for width and height."""
        if _has_size(entry):
            return entry
        sides = [entry.get('width', _MISSING), entry.get('height', _MISSING)]
        size = to_size(sides[0]), to_size(sides[1])
        if None in size:
            size = self._folder.size(entry['file_name'])
        value = f'{entry["file_name"]}: {_short(sides[0])} and {_short(sides[1])}'
        self._note('invalid image size', value, 'images', size is not None)
        return entry if size is None else {**entry, 'width': size[0], 'height': size[1]}

    def _repair_sizes(self, images: list[dict], annotations: list[dict], sample: int | None) -> list[dict]:
        """Compare width and height with the files; take those of the file where all annotations lie inside."""
        checked = images if sample is None else thin_out(images, sample)
        wrong: dict[object, tuple[int, int]] = {}
        for image in checked:
            size = self._folder.size(image['file_name'])
            if size is not None and _has_size(image) and size != (image['width'], image['height']):
                wrong[image['id']] = size
        if not wrong:
            return images
        kind = 'wrong sizes in annotations'
        self.notes.totals[kind] = len(checked)
        fits = all(_fits(entry, wrong[entry['image_id']]) for entry in annotations if entry['image_id'] in wrong)
        severity = FAULT if any(annotation.get('segmentation') for annotation in annotations) else WARNING
        repaired = []
        for image in images:
            if size := wrong.get(image['id']):
                value = f'{image["file_name"]}: {image["width"]}×{image["height"]}, the file is {size[0]}×{size[1]}'
                sound = fits and not _is_resized(image, size)
                self._note(kind, value, 'images', sound, severity)
                image = {**image, 'width': size[0], 'height': size[1]} if sound else image
            repaired.append(image)
        return repaired

    def _repair_annotations(self) -> list[dict]:
        """Return the annotations, without those that are beyond repair or copies."""
        images, categories = (set(self._ids[name].values()) for name in ('image_id', 'category_id'))
        masks = [entry.get('segmentation') for entry in self._entries if type(entry) is dict]
        masks = [mask for mask in masks if type(mask) is dict]
        self._areas = dict(zip(map(id, masks), rle_areas(masks), strict=True))
        seen: set = set()  # ids
        repaired = []
        for entry in self._entries:
            try:  # most entries are sound: a few comparisons, without a call for each field
                x, y, width, height = entry['bbox']
                key, crowd, mask = entry['id'], entry['iscrowd'], entry.get('segmentation')
                sound = (
                    entry['image_id'] in images
                    and entry['category_id'] in categories
                    and entry['area'] > 0
                    and isfinite(entry['area'])
                    and isfinite(x + y + width + height)
                    and (crowd == 0 or crowd == 1)
                    and type(key) is int
                    and key
                    and key not in seen
                    and (not mask or self._is_mask(mask))
                )
            except (KeyError, OverflowError, TypeError, ValueError):
                sound = False
            entry = entry if sound else self._repair_annotation(entry, seen)
            if entry is not None:
                seen.add(entry['id'])
                repaired.append(entry)
        return repaired

    def _is_mask(self, mask: object) -> bool:
        """Return True for polygons or RLE in COCO's form."""
        return self._areas[id(mask)] is not None if type(mask) is dict else are_polygons(mask)

    def _repair_annotation(self, source: object, seen: set) -> dict | None:
        """Return a repaired annotation; None if it is beyond repair or a copy."""
        if not isinstance(source, dict) or 'image_id' not in source or 'category_id' not in source:
            self._note('missing field', _short(source), repaired=False)
            return None
        key = source.get('id', _MISSING)
        self._label = (
            f'annotation {key if type(key) is int else _short(key)}'
            if key is not _MISSING
            else 'annotation (id is missing)'
        )
        entry = dict(source)
        steps = [
            self._repair_reference(entry, 'image_id'),
            self._repair_reference(entry, 'category_id'),
            self._repair_mask(entry),
            self._repair_box(entry),
        ]
        if not all(steps):
            return None
        self._repair_area(entry)
        self._repair_crowd(entry)
        return entry if self._repair_id(entry, source, seen) else None

    def _repair_reference(self, entry: dict, name: str) -> bool:
        """Replace the id of an image or category by the one that the list has."""
        value, ids = entry[name], self._ids[name]
        found = entry[name] = ids.get(to_id(value))
        if found is None:
            like = f'the ids are like {next(iter(ids.values()))!r}' if ids else 'the list is empty'
            self._note('unknown id', f'{self._label}: {name} is {_short(value)}, {like}', repaired=False)
        elif found != value:
            value = f'{self._label}: {name} is {_short(value)}, in the list it is {found!r}'
            self._note('value of another type', value)
        return found is not None

    def _repair_mask(self, entry: dict) -> bool:
        mask = entry.get('segmentation')
        if not mask or self._is_mask(mask):
            return True
        found = entry['segmentation'] = repair_polygons(mask)
        if found != mask:  # a few large numbers are sound, too
            self._note('invalid mask', f'{self._label}: segmentation is {_short(mask)}', repaired=found is not None)
        return found is not None

    def _repair_box(self, entry: dict) -> bool:
        value, mask = entry.get('bbox', _MISSING), entry.get('segmentation')
        box = to_numbers(value)
        kind = 'value of another type'
        if box is None or len(box) != 4:
            kind, box = 'invalid box', None
            if isinstance(mask, list) and mask:
                box = to_numbers(bounding_box(mask))  # None: a side beyond float
        if box != value or box is None:
            self._note(kind, f'{self._label}: bbox is {_short(value)}', repaired=box is not None)
        entry['bbox'] = box
        return box is not None

    def _repair_area(self, entry: dict) -> None:
        value, box, mask = entry.get('area', _MISSING), entry['bbox'], entry.get('segmentation')
        area = to_number(value)
        kind, severity = 'value of another type', ''
        if area is None or area <= 0:
            of_box = to_number(max(box[2], 0) * max(box[3], 0)) or 0
            coded = to_number(self._areas.get(id(mask))) or 0  # None: a number beyond float
            computed = mask_area(mask) if isinstance(mask, list) and mask else coded if mask else of_box
            if area is None or (computed > 0 and min(box[2:]) >= 1):
                kind, severity, area = 'invalid area', FAULT if area is None else WARNING, computed
        if area != value:
            self._note(kind, f'{self._label}: area is {_short(value)}', severity=severity)
            entry['area'] = area

    def _repair_crowd(self, entry: dict) -> None:
        value = entry.get('iscrowd')
        if isinstance(value, (int, float)) and value in (0, 1):
            return
        # Training reads a missing value as 0, but '0' as 1.
        severity = FAULT if value is not None or self._evaluated else WARNING
        self._note('invalid iscrowd', f'{self._label}: {_short(entry.get("iscrowd", _MISSING))}', severity=severity)
        entry['iscrowd'] = int(bool(to_number(value) or (isinstance(value, str) and value.strip().lower() == 'true')))

    def _repair_id(self, entry: dict, source: dict, seen: set) -> bool:
        """Give an annotation an id of its own if need be; returns False for a copy of another annotation."""
        key = entry.get('id')
        if isinstance(key, str) and isinstance(to_id(key), int):
            self._note('value of another type', f'{self._label}: id is {_short(key)}', severity=WARNING)
            key = entry['id'] = to_id(key)
        if isinstance(key, str) or to_id(key) is None:
            # Only evaluation computes with ids.
            severity = WARNING if isinstance(key, str) and not self._evaluated else FAULT
            self._note('invalid annotation id', self._label, severity=severity)
        elif key in seen:
            self._note('duplicate annotation id', self._label)
            if _equal(source, self._by_id.get(key)):
                return False
        elif key == 0 and self._evaluated:
            self._note('annotation id 0', self._label)
        else:
            return True
        entry['id'] = self._next_id
        self._next_id += 1
        return True

    @cached_property
    def _by_id(self) -> dict[object, dict]:
        """The first annotation of each id."""
        return {to_id(entry.get('id')): entry for entry in reversed(self._entries) if isinstance(entry, dict)}

    @cached_property
    def _next_id(self) -> int:
        ids = (to_number(entry.get('id')) for entry in self._entries if isinstance(entry, dict))
        return int(max((key for key in ids if key is not None), default=0)) + 1

    def remove_unlearned(self) -> None:
        """Remove the objects that MMDetection drops in training and CocoMetric counts."""
        found = summarize(self.content)
        for entry in found.choose(found.never_learned):
            self._note('dropped annotations', f'annotation {entry["id"]!r}')
        self.content = {**self.content, 'annotations': found.choose(~found.never_learned)}


class _Missing:
    def __repr__(self) -> str:
        return 'missing'


# Stands for a field that an entry does not have.
_MISSING = _Missing()


def _short(value: object) -> str:
    """Write a value for a message, with the first parts of long and deep ones."""
    return _SHORT.repr(value)


def _fields(entry: object, name: str) -> tuple[object, object]:
    """Return the id of an entry in a form that can be compared, and another field; None if they are not there."""
    return (to_id(entry.get('id')), entry.get(name)) if isinstance(entry, dict) else (None, None)


def _equal(one: object, other: object) -> bool:
    """Return True if two entries are equal; False for nested lists without end."""
    with contextlib.suppress(RecursionError):
        return one == other
    return False


def _has_size(image: Mapping) -> bool:
    """Return True if width and height are whole numbers above 0."""
    return all(type(side) is int and to_size(side) for side in (image.get('width'), image.get('height')))


def _name_format(content: object) -> str:
    """Return the reason why a file is not a COCO annotation file; empty if it is one."""
    if not isinstance(content, Mapping):
        return f'it holds a {type(content).__name__}, expected an object with images, annotations and categories'
    wrong = [name for name in _LISTS if not isinstance(content.get(name, []), (list, type(None)))]
    if wrong:
        return f'{wrong[0]} is a {type(content[wrong[0]]).__name__}, expected a list'
    for name in ('images', 'categories'):
        if content.get(name) is None:
            other = next((f', it looks like a file of {of}' for key, of in _OTHERS.items() if key in content), '')
            return f'it has no list {name}{other}'
    return ''


def _fits(annotation: Mapping, size: tuple[int, int]) -> bool:
    """Return True if an annotation lies inside an image of this (width, height)."""
    (x, y, width, height), mask = annotation['bbox'], annotation.get('segmentation')
    corners = [(x, y, x + width, y + height)]
    if isinstance(mask, dict):
        if mask['size'] != [size[1], size[0]]:
            return False
    elif mask:
        corners.append(extent(mask))
    return all(is_inside(corner, *size) for corner in corners)


def _is_resized(image: Mapping, size: tuple[int, int]) -> bool:
    """Return True if the annotated size is that of the file times a factor: the annotations are of another image."""
    width, height = image['width'], image['height']
    rounded = max(abs(width - size[0]), abs(height - size[1])) <= ROUNDING
    return not rounded and (height, width) != size and abs(width / size[0] / (height / size[1]) - 1) < 0.01
