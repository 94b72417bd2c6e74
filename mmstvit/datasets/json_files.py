"""Read JSON files of other people, and say what is wrong with one that cannot be read."""

import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path

import orjson

from mmstvit.errors import DataError
from mmstvit.fileio import find_placeholder, read_file


def read_json(path: str | Path) -> object:
    """Read a JSON file, in UTF-8 with or without a byte order mark; ``NaN`` and ``Infinity`` are read, too.

    Raises:
        DataError: The file cannot be read; the message says whether it is cut off, in another encoding, a web page or
            a pointer of Git LFS.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}.') from error
    return parse_json(data, path)


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pause garbage collection, which looks at all of a large annotation file again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def parse_json(data: bytes, path: object) -> object:
    """Parse the content of a JSON file; see :func:`read_json`."""
    with paused_garbage_collection():  # which takes a third of the time
        try:
            return orjson.loads(data)
        except ValueError:
            return _parse_slowly(data, path)


def _parse_slowly(data: bytes, path: object) -> object:
    """Parse what orjson refuses, or raise the error that names the reason."""
    if not data[:64].strip():
        raise DataError(f'{path} is empty.', 'Export it again.')
    if placeholder := find_placeholder(data[:64]):
        raise DataError(f'{path} is {placeholder[0]}.', placeholder[1])
    try:
        text = data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        if data[:2] in (b'\xff\xfe', b'\xfe\xff'):
            raise DataError(f'{path} is in UTF-16, expected UTF-8.', 'Save it in UTF-8.') from error
        raise DataError(
            f'{path} is not in UTF-8: byte {data[error.start]:#x} at {error.start}.', 'Save it in UTF-8.'
        ) from error
    try:
        return json.loads(text, parse_int=_parse_int)
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith('Unterminated'):
            raise DataError(f'{path} is cut off at line {error.lineno}.', 'Download or export it again.') from error
        if error.msg == 'Extra data' and error.colno == 1:
            raise DataError(
                f'{path} has a JSON value in each line (JSON lines), expected one for the whole file.',
                'Write a table, or COCO format: docs/own_data.md, "Tables".',
            ) from error
        raise DataError(
            f'{path} is not JSON: {error.msg} in line {error.lineno}, column {error.colno}.', 'Correct the file.'
        ) from error
    except RecursionError as error:
        raise DataError(f'{path} is nested too deeply.', 'Correct the file.') from error


def _parse_int(digits: str) -> int | float:
    """Parse an integer; above 64 bits as a float, like orjson, and infinity beyond that: checks of numbers find it."""
    return int(digits) if len(digits) < 19 else float(digits)
