"""What is found, and how it is told."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Fault:
    """Something wrong with a file or an annotation.

    Args:
        kind: In two or three words, such as ``'unreadable image'``; the report is grouped by it.
        path: The file.
        message: What is wrong with it; may be empty.
        warning: Whether it may well be meant so.
    """

    kind: str
    path: str
    message: str = ''
    warning: bool = False

    def __str__(self) -> str:
        return f'{self.path}: {self.message}' if self.message else self.path


@dataclass
class Split:
    """What was looked at in a split, and what was found.

    Args:
        about: Its data sets in words.
        images: How many.
        annotations: How many boxes, labels or maps.
        faults: What was found, warnings among them.
    """

    about: list[str] = field(default_factory=list)
    images: int = 0
    annotations: int = 0
    faults: list[Fault] = field(default_factory=list)


@dataclass
class Report:
    """The splits by name, and what concerns several of them."""

    splits: dict[str, Split] = field(default_factory=dict)
    between: list[Fault] = field(default_factory=list)

    def faults(self, warnings: bool = False) -> list[Fault]:
        """All faults, or all warnings."""
        found = [fault for split in self.splits.values() for fault in split.faults] + self.between
        return [fault for fault in found if fault.warning == warnings]

    def lines(self, shown: int) -> Iterator[str]:
        """The report for people, with the first ``shown`` of each kind."""
        for name, split in self.splits.items():
            yield from (f'{name}: {about}' for about in split.about)
            yield from _groups(split.faults, shown)
        if self.between:
            yield 'between splits:'
            yield from _groups(self.between, shown)
        yield f'{_count(len(self.faults()), "fault")}, {_count(len(self.faults(warnings=True)), "warning")}'

    def to_dict(self) -> dict:
        """Everything, as JSON has it."""
        return {
            'splits': {name: asdict(split) for name, split in self.splits.items()},
            'between_splits': [asdict(fault) for fault in self.between],
            'faults': len(self.faults()),
            'warnings': len(self.faults(warnings=True)),
        }


def _groups(faults: list[Fault], shown: int) -> Iterator[str]:
    """Faults before warnings, and of these the most frequent kind first."""
    kinds: dict[tuple[bool, str], list[Fault]] = {}
    for fault in faults:
        kinds.setdefault((fault.warning, fault.kind), []).append(fault)
    for (warning, kind), found in sorted(kinds.items(), key=lambda group: (group[0][0], -len(group[1]))):
        yield f'  {"warning" if warning else "FAULT"}  {kind}: {len(found)}'
        for fault in found[:shown]:
            yield f'    {fault}'
        if len(found) > shown:
            yield f'    … and {len(found) - shown} more'


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'
