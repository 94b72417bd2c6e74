"""Errors that tell the user what is wrong and how to fix it."""

import contextlib
from collections.abc import Iterator

# Characters that a terminal obeys: control characters, and those that change the direction of text.
_OBEYED = {
    code: ascii(chr(code))[1:-1]
    for code in (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}
_LINE = {code: _OBEYED[code] for code in _OBEYED if chr(code) not in '\n\t'}


def printable(text: str) -> str:
    """Escape the characters of a text that a terminal would obey, or cannot show; line breaks and tabs stay."""
    return text.translate(_LINE).encode('utf-8', 'backslashreplace').decode()


def one_line(text: str) -> str:
    """As :func:`printable`, but escape line breaks and tabs, too: a name cannot look like another line."""
    return printable(text.translate(_OBEYED))


class UserError(Exception):
    """Something that the user can fix: a command, a config, a file or data.

    Args:
        problem: What is wrong, with the value and what was expected.
        remedy: How to fix it; empty if ``problem`` already says so.
    """

    def __init__(self, problem: str, remedy: str = '') -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return printable(f'{self.problem} {self.remedy}'.rstrip())


class CheckpointError(UserError, ValueError):
    """A checkpoint file, or the weights in it, cannot be used."""


class DataError(UserError, RuntimeError):
    """A data set cannot be used as it is."""


class DivergedError(UserError, ArithmeticError):
    """A training run has NaN or Inf in its loss, gradients or weights."""


class FormError(UserError, RuntimeError):
    """A model in deploy form is used like one in training form, or the other way round."""


@contextlib.contextmanager
def prefix_errors(path: object) -> Iterator[None]:
    """Put ``path`` before the message of every :class:`CheckpointError` that is raised inside."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error.problem}', error.remedy) from error
