"""Notes of the defects of a COCO file: findings for the report, and changes that the repair makes."""

from dataclasses import dataclass, field

from mmstvit.dependencies import tool_command

from .findings import Finding, count_of
from .kinds import FAULT, KINDS

_FIX = f'Write a repaired copy: {tool_command("new_config.py")} DATA --fix'
_EXAMPLES = 5

_AREA = 'computed area from the mask, or from the box'
_NUMBERED = 'numbered the annotations'
# Kind -> what the repair does; defects of other kinds cannot be repaired without guessing.
CHANGES = {
    'no list of annotations': 'added an empty list annotations',
    'category name is a number': 'made name a string',
    'one category id twice': 'removed the copy of a category',
    'two categories of one name': 'removed the category without annotations',
    'wrong path in file_name': 'found the file by its name',
    'duplicate image id': 'removed the copy of an image entry',
    'duplicate file': 'merged the entries of one file and their equal annotations',
    'invalid image size': 'corrected width and height',
    'wrong sizes in annotations': 'took width and height from the file',
    'id of another type': 'made the id that of the image or category',
    'invalid annotation id': _NUMBERED,
    'annotation id 0': _NUMBERED,
    'duplicate annotation id': _NUMBERED,
    'annotation listed twice': 'removed the copy of an annotation',
    'number is a string': 'made it a number',
    'polygons in another form': 'wrote each polygon as one list of numbers',
    'polygon below 3 points': 'removed parts of a mask that are a point or a line',
    'invalid box': 'made bbox from the polygons',
    'no area': _AREA,
    'area 0': _AREA,
    'invalid iscrowd': 'set iscrowd',
    'evaluated but never learned': 'removed the objects',
}


@dataclass
class _Note:
    """Defects of one kind: how many there are, of how many entries, and the first few."""

    severity: str
    total: int | None
    count: int = 0
    values: list[str] = field(default_factory=list)


class Notes:
    """Defects of a file, by kind and by being repaired or not.

    Attributes:
        totals: Name of a list, or a kind -> number of entries that were looked at.
    """

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self._notes: dict[tuple[str, bool], _Note] = {}

    def add(
        self, kind: str, value: str = '', of: str = 'annotations', repaired: bool = True, severity: str = ''
    ) -> None:
        """Note a defect.

        Args:
            kind: Kind of the finding.
            value: The entry, and what is wrong with it.
            of: The list that has the entry; empty for the file as a whole.
            repaired: True if it is repaired.
            severity: Severity, if it is not that of the kind.
        """
        total = self.totals.get(kind) or self.totals.get(of)
        note = self._notes.setdefault((kind, repaired), _Note(severity or KINDS[kind].severity, total))
        note.count += 1
        if value and len(note.values) < _EXAMPLES:
            note.values.append(value)

    def findings(self, repaired: tuple[bool, ...] = (False, True)) -> list[Finding]:
        """Return a finding of each kind, in the order of the table: causes before consequences."""
        noted = [(kind, key, self._notes.get((kind, key))) for kind in KINDS for key in (False, True)]
        return [
            Finding(
                kind, '', note.values, note.total, _FIX if key else '', count=note.count,
                explains=('unusable dataset',) * (note.severity == FAULT), severity=note.severity,
            )
            for kind, key, note in noted
            if note and key in repaired
        ]  # fmt: skip

    def changes(self) -> list[str]:
        """Return a line for each kind of repair."""
        lines = []
        for finding in self.findings((True,)):
            count = f' ({count_of(finding.count, finding.total)})' if finding.total else ''
            first = f', first: {finding.values[0]}' if finding.values else ''
            lines.append(f'{finding.kind}: {CHANGES[finding.kind]}{count}{first}')
        return lines
