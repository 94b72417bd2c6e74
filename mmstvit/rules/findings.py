"""Findings of the rules, and the report of them."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from mmstvit.errors import DataError, one_line

FAULT = 'fault'
WARNING = 'warning'


@dataclass(frozen=True)
class Finding:
    """A fault or a warning about a config, its data, or both.

    Args:
        kind: Short name by which the report groups, such as ``'two categories of one name'``.
        severity: ``'fault'``, which training refuses, or ``'warning'``.
        message: One plain sentence with the value and what was expected.
        remedy: What the user does about it.
        where: The file, or the dotted key of the config.
        count: Number of images, annotations or files that are concerned.
        total: Number of those that were looked at.
        examples: The first few, short.
        split: ``'train'``, ``'val'`` or ``'test'``; empty for the config as a whole.
        explains: Kinds of findings that follow from this one, and are left out of the report if they are in its split.
    """

    kind: str
    severity: str
    message: str
    remedy: str
    where: str = ''
    count: int = 1
    total: int | None = None
    examples: tuple[str, ...] = ()
    split: str = ''
    explains: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.severity not in (FAULT, WARNING):
            raise ValueError(f'severity must be {FAULT!r} or {WARNING!r}, but got {self.severity!r}.')
        if not self.message or not self.remedy:
            raise ValueError(f'a finding needs a message and a remedy: {self}')

    @property
    def text(self) -> str:
        """The message after the file or key that it is about, unless it names that itself."""
        named = not self.where or self.where in self.message
        return one_line(self.message if named else f'{self.where}: {self.message}')

    @property
    def line(self) -> str:
        """The finding in one line, with its first examples, without the remedy."""
        examples = '; '.join(example for example in self.examples[:3] if example not in self.message)
        return f'{self.text} First: {one_line(examples)}.' if examples else self.text


@dataclass
class Report:
    """Findings, and a line for each dataset.

    Args:
        used: Lines such as ``'train: 227 of 230 annotations in 80 of 80 images (dropped: 3 area 0)'``.
        findings: The findings whose cause is not another finding; see :func:`keep_causes`.
    """

    used: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.used = [one_line(line) for line in self.used]

    @property
    def faults(self) -> list[Finding]:
        """The faults, which training refuses."""
        return [finding for finding in self.findings if finding.severity == FAULT]

    @property
    def warnings(self) -> list[Finding]:
        """The warnings."""
        return [finding for finding in self.findings if finding.severity == WARNING]

    def lines(self, shown: int) -> Iterator[str]:
        """Yield the report as text, with the first ``shown`` examples of each finding; faults stand first."""
        yield from self.used
        for finding in [*self.faults, *self.warnings]:
            yield from _listing(finding, shown)
        yield f'{_count(len(self.faults), "fault")}, {_count(len(self.warnings), "warning")}'

    def to_dict(self) -> dict:
        """Return the whole report, for JSON."""
        findings = [asdict(finding) for finding in [*self.faults, *self.warnings]]
        return dict(used=self.used, findings=findings, faults=len(self.faults), warnings=len(self.warnings))


def keep_causes(findings: Sequence[Finding]) -> list[Finding]:
    """Leave out the findings that another one explains."""
    return [finding for finding in findings if not any(_explains(cause, finding) for cause in findings)]


def _explains(cause: Finding, finding: Finding) -> bool:
    same = not cause.split or not finding.split or cause.split == finding.split
    return cause is not finding and finding.kind in cause.explains and same


def refuse(faults: Sequence[Finding]) -> None:
    """Raise one DataError that lists faults with their remedies; return if there are none."""
    if not faults:
        return
    if len(faults) == 1:
        raise DataError(faults[0].line, faults[0].remedy)
    lines = [f'  {i}. {fault.line}\n     Remedy: {fault.remedy}' for i, fault in enumerate(faults, 1)]
    raise DataError('\n'.join([f'the config and its data have {len(faults)} faults:', *lines]))


def gather_places(
    places: Iterable[tuple[str, str, str]], kinds: Mapping[str, tuple[str, str, str]], split: str
) -> Iterator[Finding]:
    """Make one finding of all places of a kind.

    Args:
        places: Kinds, paths and messages.
        kinds: Severity, meaning and remedy of each kind.
        split: The split.
    """
    by_kind: dict[str, list[tuple[str, str]]] = {}
    for kind, path, message in places:
        by_kind.setdefault(kind, []).append((path, message))
    for kind, found in by_kind.items():
        severity, meaning, remedy = kinds[kind]
        if len(found) == 1:
            yield Finding(kind, severity, found[0][1], remedy, found[0][0], split=split)
            continue
        folder = common_folder([path for path, _ in found])
        examples = tuple(f'{path.removeprefix(folder)}: {message}' for path, message in found)
        yield Finding(kind, severity, meaning, remedy, folder, len(found), examples=examples, split=split)


def common_folder(paths: Sequence[str]) -> str:
    """Return the folder that all paths are in, with a slash; empty if there is none."""
    common = os.path.commonprefix([os.path.dirname(path) + '/' for path in paths])
    return common[: common.rfind('/') + 1]


def shorten(values: Sequence[object], shown: int = 5) -> tuple[str, ...]:
    """Return the first few values as examples of a finding."""
    return tuple(map(str, values[:shown]))


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}' if number == 1 else f'{number} {noun}s'


def _listing(finding: Finding, shown: int) -> Iterator[str]:
    """Yield the lines of a finding in a report, with its first ``shown`` examples."""
    label = 'FAULT' if finding.severity == FAULT else 'warning'
    split = f' ({finding.split})' if finding.split else ''
    yield f'  {label}  {finding.kind}{split}: {finding.count}'
    yield f'    {finding.text}'
    yield from (f'      {one_line(example)}' for example in finding.examples[:shown])
    if len(finding.examples) > shown:
        yield f'      … and {len(finding.examples) - shown} more'
    yield f'    Remedy: {finding.remedy}'
