"""Findings of the rules."""

from collections.abc import Sequence
from dataclasses import dataclass

from mmstvit.errors import DataError, one_line

from .kinds import KINDS


@dataclass(frozen=True)
class Finding:
    """A fault or a warning about a config, its data, or both.

    Args:
        kind: Name in the table of kinds, such as ``'duplicate category'``, which has meaning and remedy.
        where: The file, or the dotted key of the config.
        values: What was found: names of files or annotations, values, keys of the config; of many the first ones.
        total: Number of images, annotations or files that were looked at.
        remedy: What the user does about it, if it is not the remedy of the kind.
        split: ``'train'``, ``'val'`` or ``'test'``; empty for the config as a whole.
        count: Number of those that are concerned, if ``values`` are not all of them.
        explains: Kinds of findings that follow from this one, besides those of the table; they are left out of the
            report if they are in its split.
        severity: Severity, if it is not that of the kind.
    """

    kind: str
    where: str = ''
    values: Sequence[str] = ()
    total: int | None = None
    remedy: str = ''
    split: str = ''
    count: int = 0
    explains: tuple[str, ...] = ()
    severity: str = ''

    def __post_init__(self) -> None:
        kind = KINDS[self.kind]
        object.__setattr__(self, 'values', tuple(self.values))
        object.__setattr__(self, 'count', self.count or max(1, len(self.values)))
        object.__setattr__(self, 'severity', self.severity or kind.severity)
        object.__setattr__(self, 'remedy', self.remedy or kind.remedy)
        object.__setattr__(self, 'explains', (*kind.explains, *self.explains))
        if not self.remedy:
            raise ValueError(f'a finding needs a remedy: {self}')

    @property
    def meaning(self) -> str:
        """The fault, and in how many of all it is."""
        return KINDS[self.kind].meaning + (f' ({count_of(self.count, self.total)})' if self.total else '')

    @property
    def message(self) -> str:
        """The fault, with the first values."""
        values = '; '.join(self.values[:3]) + ('; …' if self.count > 3 else '')
        return one_line(f'{self.meaning}: {values}.' if self.values else f'{self.meaning}.')

    @property
    def line(self) -> str:
        """Place and fault, with the first values, without the remedy."""
        return one_line(f'{self.where}: {self.message}' if self.where else self.message)


def count_of(number: int, total: int) -> str:
    """Write ``all 4`` or ``1 of 4``."""
    return f'all {total}' if number == total > 1 else f'{number} of {total}'


def refuse(faults: Sequence[Finding]) -> None:
    """Raise one DataError that lists faults with their remedies; return if there are none."""
    if not faults:
        return
    if len(faults) == 1:
        raise DataError(faults[0].line, faults[0].remedy)
    lines = [f'  {i}. {fault.line}\n     Remedy: {fault.remedy}' for i, fault in enumerate(faults, 1)]
    raise DataError('\n'.join([f'the config and its data have {len(faults)} faults:', *lines]))
