"""Find and repair the defects of annotations in COCO files."""

import contextlib
from functools import cached_property

from .coco_defects import MISSING, Notes, short
from .coco_values import INF, are_polygons, area_of, is_rle, repair_box, repair_polygons, repair_rle, to_id, to_number
from .kinds import FAULT, WARNING
from .masks import extent


class References:
    """Ids of images or categories, and what annotations write for them.

    Args:
        noun: Name of the list.
        known: False if the file does not have the list.
    """

    def __init__(self, noun: str, known: bool = True) -> None:
        self.noun = noun
        self.known = known
        self.ids: dict[object, object] = {}  # to be used as they are
        self._by_key: dict[object, object] = {}  # by `to_id` of every way to write them
        self.merged: dict[object, set] = {}  # id of an image with merged entries -> its objects

    def add(self, value: object) -> None:
        """Add an id, unless there is an equal one."""
        if self._by_key.setdefault(to_id(value), value) is value:
            self.ids[value] = value

    def merge(self, value: object, into: object) -> None:
        """Let an id stand for another one, whose objects have to be compared."""
        self._by_key[to_id(value)] = into
        self.ids.pop(into, None)
        self.merged.setdefault(into, set())

    def find(self, value: object) -> tuple[object, bool]:
        """Return the id that a value stands for, None if there is none; and False if it is written in another way."""
        found = self._by_key.get(to_id(value)) if self.known else value
        return found, not self.known or value == found or found in self.merged

    def example(self) -> str:
        """Write an id as an example."""
        first = next(iter(self._by_key.values()), MISSING)
        return f'{self.noun} is empty' if first is MISSING else f'ids in {self.noun} are like {first!r}'


class AnnotationRepair:
    """Repair of the annotations of a COCO file, with a note of each defect.

    Args:
        entries: The annotations.
        images: Ids of the images.
        categories: Ids of the categories.
        notes: Takes the defects.
        evaluated: False if the file is for training alone.
    """

    def __init__(
        self, entries: list, images: References, categories: References, notes: Notes, evaluated: bool
    ) -> None:
        self.notes = notes
        self._entries = entries
        self._images, self._categories = images, categories
        self._evaluated = evaluated
        self._label = ''  # of the annotation that is repaired
        self._seen: set = set()  # ids

    def run(self) -> list[dict]:
        """Return the annotations, without those that are beyond repair or copies."""
        images, categories, seen = self._images.ids, self._categories.ids, self._seen
        repaired = []
        for entry in self._entries:
            try:  # most entries are sound: a few comparisons, without a call for each field
                x, y, width, height = entry['bbox']
                key, crowd, mask = entry['id'], entry['iscrowd'], entry.get('segmentation')
                sound = (
                    entry['image_id'] in images
                    and entry['category_id'] in categories
                    and 0 < entry['area'] < INF
                    and -INF < x + y + width + height < INF
                    and (crowd == 0 or crowd == 1)
                    and type(key) is int
                    and key
                    and key not in seen
                    and (not mask or (are_polygons(mask) if type(mask) is list else is_rle(mask)))
                )
            except (KeyError, OverflowError, TypeError, ValueError):
                sound = False
            if not sound:
                entry = self._repair(entry)
                if entry is None:
                    continue
                key = entry['id']
            seen.add(key)
            repaired.append(entry)
        return repaired

    def _note(self, kind: str, *values: object, repaired: bool = True, severity: str = '') -> None:
        self.notes.add(kind, *values, example=self._label, repaired=repaired, severity=severity)

    def _repair(self, source: object) -> dict | None:
        """Return a repaired annotation; None if it is beyond repair or a copy."""
        if not isinstance(source, dict) or 'image_id' not in source or 'category_id' not in source:
            self.notes.add('invalid annotation', source, repaired=False)
            return None
        key = source.get('id', MISSING)
        self._label = f'annotation {key if type(key) is int else short(key)}'
        entry = dict(source)
        steps = [
            self._repair_reference(entry, 'image_id', self._images, 'unknown image id'),
            self._repair_reference(entry, 'category_id', self._categories, 'unknown category'),
            self._repair_mask(entry),
            self._repair_box(entry),
        ]
        if not all(steps):
            return None
        self._repair_area(entry)
        self._repair_crowd(entry)
        objects = self._images.merged.get(entry['image_id'])
        if objects is not None:
            same = (entry['category_id'], repr(entry['bbox']), repr(entry.get('segmentation')))
            if same in objects:
                return None
            objects.add(same)
        return entry if self._repair_id(entry, source) else None

    def _repair_reference(self, entry: dict, name: str, references: References, unknown: str) -> bool:
        value = entry[name]
        entry[name], same = references.find(value)
        if entry[name] is None:
            self._note(unknown, value, references.example(), repaired=False)
        elif not same:
            self._note('id of another type', name, value, references.noun, entry[name])
        return entry[name] is not None

    def _repair_mask(self, entry: dict) -> bool:
        mask = entry.get('segmentation')
        if not mask or (are_polygons(mask) if isinstance(mask, list) else is_rle(mask)):
            return True
        if isinstance(mask, list):
            found, kinds = repair_polygons(mask)
        else:
            found = repair_rle(mask) if isinstance(mask, dict) else None
            kinds = ['invalid mask' if found is None else 'number is a string']
        for kind in list(kinds)[-1:] if found is None else kinds:
            self._note(kind, 'segmentation', mask, repaired=found is not None)
        entry['segmentation'] = found
        return found is not None

    def _repair_box(self, entry: dict) -> bool:
        value, mask = entry.get('bbox'), entry.get('segmentation')
        box = repair_box(value)
        if box is not None:
            if box is not value and box != value:
                self._note('number is a string', 'bbox', value)
                entry['bbox'] = box
            return True
        if isinstance(mask, list) and mask:
            left, top, right, bottom = extent(mask)
            box = repair_box([left, top, right - left, bottom - top])  # None: a side beyond float
        self._note('invalid box', entry.get('bbox', MISSING), repaired=box is not None)
        entry['bbox'] = box
        return box is not None

    def _repair_area(self, entry: dict) -> None:
        value = entry.get('area', MISSING)
        area = to_number(value)
        kind = 'number is a string' if isinstance(value, str) else ''
        if area is None or area <= 0:
            computed = area_of(entry.get('segmentation'), entry['bbox'])
            if area is None or (computed > 0 and min(entry['bbox'][2:]) >= 1):
                kind, area = 'no area' if area is None else 'area 0', computed
        if kind:
            self._note(kind, 'area', value)
            entry['area'] = area

    def _repair_crowd(self, entry: dict) -> None:
        value = entry.get('iscrowd')
        if isinstance(value, (int, float)) and value in (0, 1):
            return
        # Training reads a missing value as 0, but '0' as 1.
        severity = FAULT if value is not None or self._evaluated else WARNING
        self._note('invalid iscrowd', entry.get('iscrowd', MISSING), severity=severity)
        entry['iscrowd'] = int(bool(to_number(value) or (isinstance(value, str) and value.strip().lower() == 'true')))

    def _repair_id(self, entry: dict, source: dict) -> bool:
        """Give an annotation an id of its own if need be; returns False for a copy of another annotation."""
        key = entry.get('id')
        if isinstance(key, str) and isinstance(to_id(key), int):
            self._note('number is a string', 'id', key, severity=WARNING)
            key = entry['id'] = to_id(key)
        if not isinstance(key, (int, float)) or key != key:
            # Only evaluation computes with ids.
            severity = WARNING if isinstance(key, str) and not self._evaluated else FAULT
            self._note('invalid annotation id', entry.get('id', MISSING), severity=severity)
        elif key in self._seen:
            if _equal(source, self._by_id.get(key)):
                self._note('annotation listed twice', self._label)
                return False
            self._note('duplicate annotation id', key)
        elif key == 0 and self._evaluated:
            self._note('annotation id 0')
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


def _equal(one: object, other: object) -> bool:
    """Return True if two entries are equal; False for nested lists without end."""
    with contextlib.suppress(RecursionError):
        return one == other
    return False
