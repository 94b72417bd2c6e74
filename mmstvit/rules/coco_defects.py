"""Table of what exporters write into COCO files that MMDetection cannot read, and notes of what a file has of it."""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mmstvit.dependencies import tool_command

from .findings import Finding, count_of
from .kinds import FAULT, KINDS

_FIX = f'Write a repaired copy: {tool_command("new_config.py")} DATA --fix'
_EXAMPLES = 5
_REPR = reprlib.Repr()
_REPR.maxlist, _REPR.maxdict, _REPR.maxstring = 8, 8, 80


class Defect(NamedTuple):
    """A defect of COCO files.

    Args:
        noun: The entries that are counted; empty for the file as a whole.
        problem: Message with the placeholders ``{0}`` for the first value that is wrong and ``{0:s}`` for a text.
        change: Repair, for the list of changes; empty if there is none without guessing.
    """

    noun: str
    problem: str
    change: str = ''


_AREA = 'computed area from the mask, or from the box'
_NUMBERED = 'numbered the annotations'
_FOUND = 'found the file by its name'
_NOT_POLYGONS = '{0:s} is {1}, expected a list of polygons [[x1, y1, x2, y2, …], …].'

# fmt: off
# Kind -> defect, causes before consequences; remedies are those of the table of kinds.
DEFECTS = {kind: Defect(*row) for kind, row in {
    'invalid annotation file': ('', '{0:s}'),
    'no list of categories': ('', 'the file has no list categories, so that its classes are unknown.'),
    'no list of annotations': (
        '', 'the file has no list annotations, like that of a test set.', 'added an empty list annotations'),
    'invalid category': ('categories', '{0} is not a category with id and name.'),
    'category name is a number': ('categories', 'the name {0} is a number, expected a string.', 'made name a string'),
    'one category id twice': ('categories', 'the id {0} is that of {1} and {2}.', 'removed the copy of a category'),
    'two categories of one name': (
        'categories', 'the name {0} is that of {1} ({2:s}).', 'removed the category without annotations'),
    'invalid image entry': ('images', '{0} is not an image with id and file_name.'),
    'absolute path in file_name': ('images', 'file_name is {0}{1:s}, a path of another computer.', _FOUND),
    'Windows path in file_name': ('images', 'file_name is {0}{1:s}, a Windows path.', 'replaced \\ by / in file_name'),
    'another folder in file_name': ('images', 'file_name is {0}{1:s}.', _FOUND),
    'duplicate image id': ('images', 'the id {0} is that of {1:s} and {2:s}; MMDetection keeps one of them.',
        'removed the copy of an image entry'),
    'duplicate file': ('images', '{0:s} has the ids {1} and {2}; for each, objects of the other are background.',
        'merged the entries of one file and their equal annotations'),
    'invalid image size': ('images', 'width and height are {0} and {1}, expected whole numbers above 0.',
        'corrected width and height'),
    'wrong sizes in annotations': ('checked images', 'width and height are not those of the file, {0:s}.',
        'took width and height from the file'),
    'invalid annotation': ('annotations', '{0} is not an annotation with image_id and category_id.'),
    'id of another type': ('annotations', '{0:s} is {1}, but the id in {2:s} is {3}.',
        'made the id that of the image or category'),
    'unknown image id': ('annotations', 'image_id is {0}; {1:s}.'),
    'unknown category': ('annotations', 'category_id is {0}; {1:s}.'),
    'invalid annotation id': ('annotations', 'id is {0}, expected a number.', _NUMBERED),
    'annotation id 0': ('annotations', 'the id is 0, which pycocotools counts as not found: AP is too low.', _NUMBERED),
    'duplicate annotation id': ('annotations', 'the id {0} occurs more than once.', _NUMBERED),
    'annotation listed twice': ('annotations', '{0:s} is there more than once.', 'removed the copy of an annotation'),
    'number is a string': ('fields', '{0:s} is {1}, expected a number.', 'made it a number'),
    'flat polygon': ('annotations', _NOT_POLYGONS, 'put the polygon into a list'),
    'nested polygon': ('annotations', _NOT_POLYGONS, 'removed the additional lists around polygons'),
    'polygon of points': ('annotations', '{0:s} is {1}, expected polygons [x1, y1, x2, y2, …] without points as lists.',
        'joined the points of a polygon'),
    'empty polygon': (
        'annotations', '{0:s} is {1}, expected polygons or an empty list.', 'removed polygons without numbers'),
    'polygon below 3 points': ('annotations', '{0:s} is {1}; a polygon needs three points, 6 numbers.',
        'removed parts of a mask that are a point or a line'),
    'odd polygon': ('annotations', '{0:s} is {1}, an odd count of numbers for x and y.'),
    'invalid mask': ('annotations', '{0:s} is {1}, neither polygons of finite numbers nor RLE (size and counts).'),
    'invalid box': ('annotations', 'bbox is {0}, expected four finite numbers.', 'made bbox from the polygons'),
    'no area': ('annotations', '{0:s} is {1}, expected a number.', _AREA),
    'area 0': (
        'annotations', '{0:s} is {1}, for which MMDetection drops the object; its mask or box is larger.', _AREA),
    'invalid iscrowd': ('annotations', 'iscrowd is {0}, expected 0 or 1, which evaluation reads.', 'set iscrowd'),
}.items()}
# fmt: on


@dataclass
class _Note:
    message: str
    severity: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Notes:
    """Defects of a file, counted by kind and by being repaired or not."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}  # noun -> number of entries
        self._notes: dict[tuple[str, bool], _Note] = {}

    def add(self, kind: str, *values: object, example: str = '', repaired: bool = True, severity: str = '') -> None:
        """Note a defect.

        Args:
            kind: A key of :data:`DEFECTS`.
            values: Values for the message, which has those of the first entry.
            example: The entry that has it.
            repaired: True if it is repaired.
            severity: Severity, if it is not that of the table.
        """
        note = self._notes.get((kind, repaired))
        if note is None:
            message = DEFECTS[kind].problem.format(*map(_Shown, values))
            note = self._notes[kind, repaired] = _Note(message, severity or KINDS[kind].severity)
        note.count += 1
        if example and len(note.examples) < _EXAMPLES:
            note.examples.append(example)

    def findings(self, repaired: tuple[bool, ...] = (False, True)) -> list[Finding]:
        """Return a finding of each kind, in the order of the table."""
        findings = []
        for kind, is_repaired, note in self._listed():
            total, explains = self.totals.get(DEFECTS[kind].noun), ('unusable dataset',) * (note.severity == FAULT)
            message = f'{counted}: {note.message}' if (counted := self._count(kind, note)) else note.message
            finding = Finding(
                kind, message, _FIX if is_repaired else '', '', note.count, total, tuple(note.examples), '', explains,
                note.severity,
            )  # fmt: skip
            findings += [finding] * (is_repaired in repaired)
        return findings

    def changes(self) -> list[str]:
        """Return a line for each kind of repair."""
        lines = []
        for kind, repaired, note in self._listed():
            first = f' (first: {note.examples[0]})' if note.examples else ''
            count = f', {counted}{first}' if (counted := self._count(kind, note)) else ''
            lines += [f'{kind}: {DEFECTS[kind].change}{count}'] * repaired
        return lines

    def _listed(self) -> Iterator[tuple[str, bool, _Note]]:
        for kind in DEFECTS:
            for repaired in (False, True):
                if note := self._notes.get((kind, repaired)):
                    yield kind, repaired, note

    def _count(self, kind: str, note: _Note) -> str:
        noun = DEFECTS[kind].noun
        total = self.totals.get(noun)
        return f'{note.count if total is None else count_of(note.count, total)} {noun}' if noun else ''


class _Missing:
    def __repr__(self) -> str:
        return 'missing'


# Stands for a field that an entry does not have.
MISSING = _Missing()


def short(value: object) -> str:
    """Write a value for a message, with the first parts of long and deep ones."""
    return _REPR.repr(value)


class _Shown:
    """A value in a message: ``{0}`` writes it as in Python, ``{0:s}`` a text as it is."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __format__(self, spec: str) -> str:
        return str(self.value) if spec == 's' else short(self.value)
