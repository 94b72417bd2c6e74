"""What a check found."""

from dataclasses import dataclass

OK, WARNING, FAILED = 'ok', 'warning', 'FAILED'


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Args:
        name: What was looked at.
        status: ``'ok'``, ``'warning'`` or ``'FAILED'``: training could not start.
        detail: What was seen.
        remedy: The command, or the step, that mends it; empty if there is nothing to mend or ``detail`` has it.
        config: The config that asks for it, if one does.
    """

    name: str
    status: str
    detail: str
    remedy: str = ''
    config: str = ''

    def __str__(self) -> str:
        line = f'{self.status:<7}  {self.name:<16}  {self.detail}'
        return f'{line}\n{"":<27}→ {self.remedy}' if self.remedy else line


def summary(findings: list[Finding]) -> str:
    """The last line of the report."""
    counts = {status: sum(f.status == status for f in findings) for status in (OK, WARNING, FAILED)}
    verdict = 'training cannot start' if counts[FAILED] else 'training can start'
    warnings = f'{counts[WARNING]} warning{"" if counts[WARNING] == 1 else "s"}'
    return f'{verdict}: {counts[OK]} ok, {warnings}, {counts[FAILED]} failed'


def exit_code(findings: list[Finding]) -> int:
    return int(any(f.status == FAILED for f in findings))
