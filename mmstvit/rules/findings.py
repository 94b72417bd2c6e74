"""Findings of the rules."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from mmstvit.errors import DataError, one_line

from .kinds import KINDS


@dataclass(frozen=True)
class Finding:
    """A fault or a warning about a config, its data, or both.

    Args:
        kind: Name in the table of kinds, by which the report groups, such as ``'two categories of one name'``.
        message: One plain sentence with the value and what was expected.
        remedy: What the user does about it, if it is not the remedy of the kind.
        where: The file, or the dotted key of the config.
        count: Number of images, annotations or files that are concerned.
        total: Number of those that were looked at.
        examples: What is concerned, short; of an annotation file the first few.
        split: ``'train'``, ``'val'`` or ``'test'``; empty for the config as a whole.
        explains: Kinds of findings that follow from this one, besides those of the table; they are left out of the
            report if they are in its split.
        severity: Severity, if it is not that of the kind.
    """

    kind: str
    message: str
    remedy: str = ''
    where: str = ''
    count: int = 1
    total: int | None = None
    examples: tuple[str, ...] = ()
    split: str = ''
    explains: tuple[str, ...] = ()
    severity: str = ''

    def __post_init__(self) -> None:
        kind = KINDS[self.kind]
        object.__setattr__(self, 'severity', self.severity or kind.severity)
        object.__setattr__(self, 'remedy', self.remedy or kind.remedy)
        object.__setattr__(self, 'explains', (*kind.explains, *self.explains))
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


def common_folder(paths: Sequence[str]) -> str:
    """Return the folder that all paths are in, with a slash; empty if there is none."""
    common = os.path.commonprefix([os.path.dirname(path) + '/' for path in paths])
    return common[: common.rfind('/') + 1]
