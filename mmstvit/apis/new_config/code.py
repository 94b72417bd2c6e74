"""Write Python values as the code of a config.

MMEngine changes the text of a config before it executes it: it replaces ``{{$NAME:default}}``, ``{{ fileDirname }}``
and ``{{_base_.key}}``, also inside strings, and takes the default for a regular expression (0.10.0 to 0.10.12).
:func:`literal` writes strings in which these patterns do not occur.
"""

import unicodedata
from collections.abc import Iterable, Mapping

from mmstvit.errors import DataError

_WIDTH = 120
_LONGEST = 4096  # characters of a name: those of a path


class Code(str):
    """An expression that is written as it is, such as the name of a variable."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def check_name(name: str) -> None:
    """Refuse a name from data that no config or list of files can hold.

    Raises:
        DataError: It is very long, or has control characters, bytes that are not UTF-8, or two opening braces, which
            MMEngine would replace in the config that it saves in the work dir.
    """
    if len(name) > _LONGEST:
        raise DataError(f'The name {name[:40]!r}… has {len(name)} characters.', 'Shorten it.')
    if any(unicodedata.category(character) in ('Cc', 'Cs', 'Zl', 'Zp') for character in name):
        raise DataError(f'The name {name!r} has control characters or bytes that are not UTF-8.', 'Rename it.')
    if '{{' in name:
        raise DataError(f'The name {name!r} has {{{{, which MMEngine replaces in the text of a config.', 'Rename it.')


def write_list(names: Iterable[str]) -> bytes:
    """Write a file with one name per line; raises DataError as :func:`check_name`."""
    names = list(names)
    for name in names:
        check_name(name)
        if name != name.strip():
            raise DataError(f'The name {name!r} begins or ends with a blank, which a list does not keep.', 'Rename it.')
    return ''.join(f'{name}\n' for name in names).encode()


def literal(text: str) -> str:
    """Write a string as a literal without braces; raises DataError as :func:`check_name`."""
    check_name(text)
    return repr(text).replace('{', r'\x7b').replace('}', r'\x7d')


def code(value: object, indent: int = 0, before: int = 0) -> str:
    """Write a value as Python code: dicts as ``dict(key=…)``, on one line if it fits, else with one entry per line.

    Args:
        value: Of dicts, lists, tuples, strings, numbers, None and :class:`Code`.
        indent: Spaces before the lines of the block.
        before: Characters before the value on its first line.
    """
    short = _one_line(value)
    if len(short) + before <= _WIDTH or not isinstance(value, (Mapping, list, tuple)) or not value:
        return short
    inner = ' ' * (indent + 4)
    if isinstance(value, Mapping):
        start, end = 'dict(', ')'
        items = [(f'{key}=', item) for key, item in value.items()]
    else:
        start, end = ('[', ']') if isinstance(value, list) else ('(', ')')
        items = [('', item) for item in value]
    if all(
        not isinstance(item, (Mapping, list, tuple)) or len(_one_line(item)) < 20 for _, item in items
    ) and not isinstance(value, Mapping):
        lines = _fill([_one_line(item) for _, item in items], inner)
    else:
        lines = [f'{inner}{key}{code(item, indent + 4, len(inner) + len(key) + 1)},' for key, item in items]
    return '\n'.join([start, *lines, ' ' * indent + end])


def _one_line(value: object) -> str:
    if isinstance(value, Mapping):
        return f'dict({", ".join(f"{key}={_one_line(item)}" for key, item in value.items())})'
    if isinstance(value, tuple):
        return f'({", ".join(map(_one_line, value))}{"," if len(value) == 1 else ""})'
    if isinstance(value, list):
        return f'[{", ".join(map(_one_line, value))}]'
    return literal(value) if type(value) is str else repr(value)


def _fill(items: list[str], inner: str) -> list[str]:
    """Put as many items on each line as fit."""
    lines = [inner]
    for item in items:
        if len(lines[-1]) + len(item) + 2 > _WIDTH and lines[-1] != inner:
            lines[-1] = lines[-1].rstrip()
            lines.append(inner)
        lines[-1] += f'{item}, '
    lines[-1] = lines[-1].rstrip()
    return lines


def assign(name: str, value: object, comment: str = '') -> str:
    """Write an assignment, below a comment if there is one."""
    lines = f'# {comment}\n' if comment else ''
    return f'{lines}{name} = {code(value, 0, len(name) + 3)}'
