"""Table of what exporters write into COCO files that MMDetection cannot read, and notes of what a file has of it."""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from mmstvit.dependencies import tool_command

from .findings import Finding
from .kinds import FAULT, KINDS

_FIX = f'Write a repaired copy: {tool_command("new_config.py")} DATA --fix'
_EXAMPLES = 5
_REPR = reprlib.Repr()
_REPR.maxlist, _REPR.maxdict, _REPR.maxstring = 8, 8, 80
# Findings of other rules that follow from wrong categories.
_OF_CATEGORIES = (
    'class without category', 'classes and heads disagree', 'no matching category', 'order of categories',
    'unused category',
)  # fmt: skip


@dataclass(frozen=True)
class Defect:
    """A defect of COCO files.

    Args:
        noun: The entries that are counted; empty for the file as a whole.
        problem: Message with the placeholders ``{0}`` for the first value that is wrong and ``{0:s}`` for a text.
        change: Repair, for the list of changes; empty if there is none without guessing.
        remedy: Remedy where it is not repaired; a defect that is always repaired has none.
        explains: Kinds of findings of other rules that follow from it.
    """

    noun: str
    problem: str
    change: str = ''
    remedy: str = ''
    explains: tuple[str, ...] = ()


_ADD_SIZE = 'Add width and height in pixels; with the image files at hand --fix reads them from there.'
_OWN_ID = 'Give each entry an id of its own.'
_RENAME = 'Correct file_name to the path below the folder of the images.'
_POLYGON = 'Correct the polygon, [x1, y1, x2, y2, …] with three points or more, or remove the annotation.'
_BOX = 'Add bbox, [x, y, width, height] in pixels.'

# Kind -> defect, causes before consequences. `coco_format.py` finds and repairs them.
DEFECTS = {
    'invalid annotation file': Defect(
        '', '{0:s}', remedy='Export the annotations in the COCO format for object detection (instances).'
    ),
    'no list of categories': Defect(
        '', 'the file has no list categories, so that its classes are unknown.',
        remedy='Copy categories from the training file.', explains=_OF_CATEGORIES,
    ),
    'no list of annotations': Defect(
        '', 'the file has no list annotations, like that of a test set.', 'added an empty list annotations'
    ),
    'invalid category': Defect(
        'categories', '{0} is not a category with id and name.', remedy='Add the missing fields.',
        explains=_OF_CATEGORIES,
    ),
    'category name is a number': Defect(
        'categories', 'the name {0} is a number, expected a string.', 'made name a string',
        explains=_OF_CATEGORIES,
    ),
    'one category id twice': Defect(
        'categories', 'the id {0} is that of {1} and {2}.', 'removed the copy of a category', _OWN_ID,
        _OF_CATEGORIES,
    ),
    'two categories of one name': Defect(
        'categories', 'the name {0} is that of {1} ({2:s}).', 'removed the category without annotations',
        'Give the annotations of both one category_id and remove the other category, or rename one.', _OF_CATEGORIES,
    ),
    'invalid image entry': Defect(
        'images', '{0} is not an image with id and file_name.', remedy='Add the missing fields.'
    ),
    'absolute path in file_name': Defect(
        'images', 'file_name is {0}{1:s}, a path of another computer.', 'found the file by its name', _RENAME,
        ('missing files',),
    ),
    'Windows path in file_name': Defect(
        'images', 'file_name is {0}{1:s}, a Windows path.', 'replaced \\ by / in file_name', _RENAME,
        ('missing files',),
    ),
    'another folder in file_name': Defect(
        'images', 'file_name is {0}{1:s}.', 'found the file by its name', _RENAME, ('missing files',)
    ),
    'duplicate image id': Defect(
        'images', 'the id {0} is that of {1:s} and {2:s}; MMDetection keeps one of them.',
        'removed the copy of an image entry', _OWN_ID,
    ),
    'duplicate file': Defect(
        'images', '{0:s} has the ids {1} and {2}; in each entry, the objects of the other are background.',
        'merged the entries of one file and their equal annotations', 'List each file once, with all its annotations.',
    ),
    'invalid image size': Defect(
        'images', 'width and height are {0} and {1}, expected whole numbers above 0.',
        'corrected width and height', _ADD_SIZE,
    ),
    'wrong sizes in annotations': Defect(
        'checked images', 'width and height are not those of the file, {0:s}.',
        'took width and height from the file',
        'Annotate the image files that are used for training, or turn or resize them to the annotated size.',
    ),
    'invalid annotation': Defect(
        'annotations', '{0} is not an annotation with image_id and category_id.',
        remedy='Add the missing fields.',
    ),
    'id of another type': Defect(
        'annotations', '{0:s} is {1}, but the id in {2:s} is {3}.', 'made the id that of the image or category',
        explains=('unknown image id', 'unknown category'),
    ),
    'unknown image id': Defect(
        'annotations', 'image_id is {0}; {1:s}.', remedy='Add the images to images, or remove the annotations.'
    ),
    'unknown category': Defect(
        'annotations', 'category_id is {0}; {1:s}.', remedy='Add the categories, or correct category_id.'
    ),
    'invalid annotation id': Defect(
        'annotations', 'id is {0}, expected a number.', 'numbered the annotations'
    ),
    'annotation id 0': Defect(
        'annotations', 'the id is 0, which pycocotools counts as not found: AP is too low.',
        'numbered the annotations',
    ),
    'duplicate annotation id': Defect(
        'annotations', 'the id {0} occurs more than once.', 'numbered the annotations'
    ),
    'annotation listed twice': Defect(
        'annotations', '{0:s} is there more than once.', 'removed the copy of an annotation',
        explains=('duplicate annotation id',),
    ),
    'number is a string': Defect('fields', '{0:s} is {1}, expected a number.', 'made it a number'),
    'flat polygon': Defect(
        'annotations', '{0:s} is {1}, expected a list of polygons [[x1, y1, x2, y2, …], …].',
        'put the polygon into a list',
    ),
    'nested polygon': Defect(
        'annotations', '{0:s} is {1}, expected a list of polygons [[x1, y1, x2, y2, …], …].',
        'removed the additional lists around polygons',
    ),
    'polygon of points': Defect(
        'annotations', '{0:s} is {1}, expected polygons [x1, y1, x2, y2, …] without points as lists.',
        'joined the points of a polygon',
    ),
    'empty polygon': Defect(
        'annotations', '{0:s} is {1}, expected polygons or an empty list.',
        'removed polygons without numbers',
    ),
    'polygon below 3 points': Defect(
        'annotations', '{0:s} is {1}; a polygon needs three points, 6 numbers.',
        'removed parts of a mask that are a point or a line', _POLYGON,
    ),
    'odd polygon': Defect(
        'annotations', '{0:s} is {1}, an odd count of numbers for x and y.', remedy=_POLYGON
    ),
    'invalid mask': Defect(
        'annotations', '{0:s} is {1}, neither polygons of finite numbers nor RLE (size and counts).',
        remedy=_POLYGON,
    ),
    'invalid box': Defect(
        'annotations', 'bbox is {0}, expected four finite numbers.', 'made bbox from the polygons', _BOX
    ),
    'no area': Defect(
        'annotations', '{0:s} is {1}, expected a number.', 'computed area from the mask, or from the box'
    ),
    'area 0': Defect(
        'annotations', '{0:s} is {1}, for which MMDetection drops the object; its mask or box is larger.',
        'computed area from the mask, or from the box',
    ),
    'invalid iscrowd': Defect(
        'annotations', 'iscrowd is {0}, expected 0 or 1, which evaluation reads.', 'set iscrowd'
    ),
}  # fmt: skip


@dataclass
class _Tally:
    message: str
    severity: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Notes:
    """Defects of a file, counted by kind and by being repaired or not."""

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}  # noun -> number of entries
        self._tallies: dict[tuple[str, bool], _Tally] = {}

    def add(self, kind: str, *values: object, example: str = '', mended: bool = True, severity: str = '') -> None:
        """Note a defect.

        Args:
            kind: A key of :data:`DEFECTS`.
            values: Values for the message, which has those of the first entry.
            example: The entry that has it.
            mended: True if it is repaired.
            severity: Severity, if it is not that of the table.
        """
        tally = self._tallies.get((kind, mended))
        if tally is None:
            defect = DEFECTS[kind]
            message = defect.problem.format(*map(_Shown, values))
            tally = self._tallies[kind, mended] = _Tally(message, severity or KINDS[kind].severity)
        tally.count += 1
        if example and len(tally.examples) < _EXAMPLES:
            tally.examples.append(example)

    def beyond_repair(self) -> list[Finding]:
        """Return the faults that are not repaired."""
        return [finding for finding, mended in self._findings() if not mended and finding.severity == FAULT]

    def findings(self) -> list[Finding]:
        """Return a finding of each kind, in the order of the table."""
        return [finding for finding, _ in self._findings()]

    def _findings(self) -> Iterator[tuple[Finding, bool]]:
        for kind, defect in DEFECTS.items():
            for mended in (False, True):
                tally = self._tallies.get((kind, mended))
                if tally is None:
                    continue
                total = self.totals.get(defect.noun)
                message = self._count(defect.noun, tally.count) + tally.message
                remedy = _FIX if mended else defect.remedy
                explains = (*defect.explains, *['unusable dataset'] * (tally.severity == FAULT))
                examples = tuple(tally.examples)
                yield (
                    Finding(kind, message, remedy, '', tally.count, total, examples, '', explains, tally.severity),
                    mended,
                )

    def changes(self) -> list[str]:
        """Return a line for each kind of repair."""
        lines = []
        for kind, defect in DEFECTS.items():
            if tally := self._tallies.get((kind, True)):
                count = self._count(defect.noun, tally.count).removesuffix(': ')
                first = f' (first: {tally.examples[0]})' if tally.examples else ''
                lines.append(f'{kind}: {defect.change}' + (f', {count}{first}' if count else ''))
        return lines

    def _count(self, noun: str, count: int) -> str:
        total = self.totals.get(noun)
        if not noun or total is None:
            return f'{count} {noun}: ' if noun else ''
        return f'{"all " if count == total else ""}{count} of {total} {noun}: '


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
