"""Errors that tell the user what is wrong and how to fix it."""

import contextlib
import difflib
import logging
import re
import sysconfig
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parent
# Code that the user did not write: installed packages, Python's own modules, mmstvit and its tools.
_INSTALLED = (
    'site-packages',
    'dist-packages',
    sysconfig.get_path('stdlib'),
    str(_PACKAGE),
    str(_PACKAGE.parent / 'tools'),
)

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


def _indented(message: str) -> str:
    """As :func:`printable`, with all lines but the first indented: no name in a message looks like another message."""
    return re.sub(r'\n(?=\S)', '\n  ', printable(message))


def escape_record(record: logging.LogRecord) -> bool:
    """Escape a message as a filter of a logger: no name in it controls a terminal or looks like a line of the log.

    The further lines of a message are indented.
    """
    record.msg, record.args = _indented(record.getMessage()), ()
    return True


def suggest(name: str, known: Sequence[str]) -> str:
    """Return ' Did you mean …?' if a known name is close to ``name``, else an empty string."""
    close = difflib.get_close_matches(str(name).lower(), list(known), n=1, cutoff=0.5)
    return f' Did you mean {close[0]!r}?' if close else ''


class UserError(Exception):
    """Something that the user can fix: a command, a config, a file or data.

    Args:
        problem: What is wrong, with the value and what was expected. Further lines are indented by two spaces; other
            line breaks are escaped, as they are part of a name.
        remedy: How to fix it; empty if ``problem`` already says so.
    """

    def __init__(self, problem: str, remedy: str = '') -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        texts = (self.problem, self.remedy)
        problem, remedy = (re.sub(r'\n(?!  )', r'\\n', text.rstrip(' \n')) for text in texts)
        line = '\n' if '\n' in problem else ''
        return printable(f'{problem}{line} {remedy}'.rstrip(' \n'))


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


def save_traceback(error: Exception, always: bool = False) -> str:
    """Write the traceback of an error to a temporary file if the error comes from code of the user.

    A model or dataset of one's own may raise a KeyError or TypeError, of which a :class:`UserError` gives only the
    message. Its author needs the lines that led there.

    Args:
        error: The error that ends the command.
        always: Write it wherever the error comes from.

    Returns:
        A sentence that names the file, with a space before it; empty if no code of the user raised the error, or if the
        file cannot be written.
    """
    cause, files = error, []
    while cause is not None:
        if not isinstance(cause, UserError):
            files += [frame.f_code.co_filename for frame, _ in traceback.walk_tb(cause.__traceback__)]
        cause = cause.__cause__ or cause.__context__
    if not always and all(file.startswith('<') or any(part in file for part in _INSTALLED) for file in files):
        return ''
    try:
        with tempfile.NamedTemporaryFile('w', prefix='mmstvit_', suffix='.log', delete=False) as log:
            log.writelines(traceback.format_exception(error))
    except OSError:  # the disk may be full
        return ''
    return f' The traceback is in {log.name}'
