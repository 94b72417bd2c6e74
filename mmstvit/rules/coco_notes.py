"""Notes of the defects of a COCO file: findings for the report, and changes that the repair makes."""

from collections import defaultdict

from mmstvit.dependencies import tool_command

from .findings import Finding, count_of
from .kinds import KINDS

_FIX = f'Write a repaired copy: {tool_command("new_config.py")} DATA --fix'

# Kind -> what the repair does; defects of other kinds cannot be repaired without guessing.
CHANGES = {
    'no list of annotations': 'added an empty list annotations',
    'value of another type': 'made it a number, name a string, and an id that of its image or category',
    'duplicate category': 'removed copies, and categories without annotations',
    'wrong path in file_name': 'found the file by its name',
    'duplicate image': 'removed the copy of an image entry',
    'invalid image size': 'corrected width and height',
    'wrong sizes in annotations': 'took width and height from the file',
    'invalid annotation id': 'numbered the annotations',
    'annotation id 0': 'numbered the annotation',
    'duplicate annotation id': 'removed copies, and numbered the others',
    'invalid mask': 'wrote each polygon as one list of numbers, without parts below 3 points',
    'invalid box': 'made bbox from the polygons',
    'invalid area': 'computed area from the mask, or from the box',
    'invalid iscrowd': 'set iscrowd',
    'dropped annotations': 'removed the objects',
}


class Notes:
    """Defects of a file, by kind, severity, list, and being repaired or not.

    Attributes:
        totals: Name of a list, or a kind -> number of entries that were looked at.
    """

    def __init__(self) -> None:
        self.totals: dict[str, int] = {}
        self._values: defaultdict[tuple[str, bool, str, str], list[str]] = defaultdict(list)

    def add(
        self, kind: str, value: str = '', of: str = 'annotations', repaired: bool = True, severity: str = ''
    ) -> None:
        """Note a defect.

        Args:
            kind: Kind of the finding.
            value: The entry, and what is wrong with it; empty for the file as a whole.
            of: The list that has the entry; empty for the file as a whole.
            repaired: True if it is repaired.
            severity: Severity, if it is not that of the kind.
        """
        self._values[kind, repaired, severity, of] += [value] if value else []

    def findings(self, repaired: tuple[bool, ...] = (False, True)) -> list[Finding]:
        """Return the findings in the order of the table: causes before consequences."""
        findings = []
        for (kind, fixed, severity, of), values in self._values.items():
            total, remedy = self.totals.get(kind) or self.totals.get(of), _FIX if fixed else ''
            if fixed in repaired:
                options = dict(severity=severity, explains=('unusable dataset',))
                findings.append(Finding(kind, '', values, total, remedy, **options))
        order = [*KINDS]
        return sorted(findings, key=lambda finding: (order.index(finding.kind), finding.remedy == _FIX))

    def changes(self) -> list[str]:
        """Return a line for each kind of repair."""
        lines = []
        for finding in self.findings((True,)):
            count = f' ({count_of(finding.count, finding.total)})' if finding.total else ''
            first = f', first: {finding.values[0]}' if finding.values else ''
            lines.append(f'{finding.kind}: {CHANGES[finding.kind]}{count}{first}')
        return lines
