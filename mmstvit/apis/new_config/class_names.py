"""Names, values and colors of classes from the files in which data sets have them."""

import csv
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmstvit.datasets.json_files import read_json
from mmstvit.errors import DataError, UserError
from mmstvit.fileio import read_file

from .folder import Folder

# What the name of a file of names says, in words or written as one.
_FILE = re.compile(
    r'categor(y|ies)|class(es)?|codes|colou?r(s|map)?|legend|labels?|labelmap|names?|obj|objectinfo150|palette', re.I
)
_SUFFIXES = ('.txt', '.csv', '.tsv', '.names', '.labels', '.json')
_MOST_NAMES = 1000
_LARGEST = 1 << 20  # bytes of a file of names
_ENCODINGS = ('latin1', 'gb18030', 'big5', 'shift_jis', 'euc-kr', 'cp1251')  # names that iconv knows, too
_VOID = ('void', 'ignore', '__ignore__', '_ignore_', 'ignored', 'unlabeled', 'unlabelled', 'other (ignored)')
_NAME_COLUMNS = ('name', 'class', 'label', 'title', 'readable', 'names', 'classes')
_VALUE_COLUMNS = ('idx', 'index', 'id', 'value', 'pixel value', 'label_id', 'class_id')
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Entry:
    """A class as a file or an option describes it.

    Args:
        name: Its name.
        value: Its value in label maps, if it is given: an integer, or a color.
    """

    name: str
    value: int | Color | None = None

    @property
    def is_void(self) -> bool:
        """True for the names that data sets give to pixels that are not to be learned."""
        return self.name.lower() in _VOID


def choose_names(folder: Folder, values: Collection[object] = ()) -> tuple[list[Entry], Path | None]:
    """Find the file of the names below a folder; several files must agree, as far as they can be for the data.

    Args:
        folder: The folder.
        values: Values in the label maps; a file that names all of them with their values is preferred.

    Raises:
        DataError: The files disagree.
    """
    read = find_names(folder)
    wanted = set(values) - {0, 255}
    fit = {path: entries for path, entries in read.items() if wanted and wanted <= {entry.value for entry in entries}}
    read = fit or read
    valued = any(entries[0].value is not None for entries in read.values())  # then the order says nothing
    names = [[entry.name for entry in entries] for entries in read.values()]
    names = [sorted(part) if valued else part for part in names]
    if any(part != names[0] for part in names):
        raise DataError(f'The files {", ".join(read)} have other names of classes.', 'Name one: --classes FILE')
    # A file with values or colors says more than a list of names.
    best = max(read, key=lambda path: read[path][0].value is not None, default=None)
    return (read[best], folder.root / best) if best else ([], None)


def find_names(folder: Folder) -> dict[str, list[Entry]]:
    """Find the files of names below a folder; returns what each says."""
    files = [file for file in folder.with_suffix(*_SUFFIXES) if _is_called_names(file.rpartition('/')[2])]
    return {path: entries for path in files if (entries := _read_named(folder, path))}


def _is_called_names(name: str) -> bool:
    if name.lower().endswith(('.names', '.labels')):
        return True
    words = re.split(r'[\W_]+|(?<=[a-z])(?=[A-Z])', name.rpartition('.')[0])
    return any(_FILE.fullmatch(word) for word in (*words, re.sub(r'[\W_]', '', name.rpartition('.')[0])))


def _read_named(folder: Folder, path: str) -> list[Entry]:
    """Read a file that is called like one of names; empty if it says something about images."""
    if (folder.root / path).stat().st_size > _LARGEST:
        return []
    entries = read_names(folder.root / path)
    return [] if any(folder.find_image(re.split(r'[\s,;]', entry.name)[0]) for entry in entries) else entries


def read_names(path: Path) -> list[Entry]:
    """Read a file with a class per line: its name alone, or with its value or with red, green and blue; or a JSON file.

    Returns:
        The entries; empty if the file has another form.
    """
    if path.suffix.lower() == '.json':
        entries = _from_json(path)
    else:
        text = read_text(path)
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith('#')]
        if not lines or len(lines) > _MOST_NAMES or lines[0][0] in '{[':
            return []
        # predict.py writes ' before a name that a spreadsheet would execute.
        rows = [[re.sub(r"^'(?=[=+@-])", '', cell) for cell in _columns(line)] for line in lines]
        header = [cell.lower() for cell in rows[0]]
        if len(header) > 1 and any(cell in _NAME_COLUMNS for cell in header):
            entries = [_from_cells(dict(zip(header, row, strict=False))) for row in rows[1:]]
        else:
            entries = [_from_row(row) for row in rows]
    usable = entries and all(entries) and len({type(entry.value) for entry in entries}) == 1
    return entries if usable else []


def _from_json(path: Path) -> list[Entry | None]:
    """Read names, alone or with colors or values.

    They are a list of names, or of objects with them, alone or as the only list of an object; or an object of names and
    values, either way round, or of names and colors.
    """
    try:
        content = read_json(path)
    except DataError:
        return []
    if isinstance(content, Mapping) and len(content) <= _MOST_NAMES:
        rows = [[key, *value] if isinstance(value, list) else [key, value] for key, value in content.items()]
        if all(len(row) in (2, 4) and all(isinstance(cell, (int, str)) for cell in row) for row in rows):
            return [
                _from_row([*map(str, row)]) if len({*map(_is_number, map(str, row))}) == 2 else None for row in rows
            ]
    every = content.values() if isinstance(content, Mapping) else [content]
    lists = [value for value in every if isinstance(value, list)]
    if len(lists) != 1 or len(lists[0]) > _MOST_NAMES:
        return []
    if all(isinstance(item, str) for item in lists[0]):
        return [Entry(name) for name in lists[0]]
    if any(not isinstance(item, Mapping) for item in lists[0]):
        return []
    flat = [{str(key).lower(): item[key] for key in item} for item in lists[0]]
    for item in flat:
        color = item.get('color', item.get('rgb'))
        if isinstance(color, str) and re.fullmatch(r'#[0-9a-fA-F]{6}', color):
            color = [*bytes.fromhex(color[1:])]
        if isinstance(color, list) and len(color) == 3:
            item |= dict(zip(('red', 'green', 'blue'), color, strict=True))
    return [_from_cells({key: str(value) for key, value in item.items()}) for item in flat]


def _columns(line: str) -> list[str]:
    """Split a line at tabs, semicolons, commas or colons; otherwise where a number begins or ends."""
    for mark in '\t', ':', ';', ',':
        if mark in line:
            cells = next(csv.reader([line.strip()], delimiter=mark, skipinitialspace=True))
            parts = (re.split(r'[,\s]+', cell) if re.fullmatch(r'[\d, ]+', cell) else [cell] for cell in cells)
            return [part.strip() for cell in parts for part in cell]
    match = re.fullmatch(r'((?:\d+\s+)*)(.*?)((?:\s+\d+)*)', line.strip())
    return [*match[1].split(), match[2], *match[3].split()]


def _from_cells(cells: Mapping[str, str]) -> Entry | None:
    """Make an entry of cells with the names of their columns."""
    name = next((cells[key] for key in _NAME_COLUMNS if cells.get(key)), None)
    value = next((cells[key] for key in _VALUE_COLUMNS if _is_number(cells.get(key, ''))), None)
    color = [cells.get(key, cells.get(key[0], '')) for key in ('red', 'green', 'blue')]
    if name is None:
        return None
    name = re.split('[,;]', name)[0]  # the first of several synonyms
    if all(map(_is_number, color)):
        return Entry(name, tuple(map(int, color))) if max(map(int, color)) < 256 else None
    return Entry(name, int(value) if value is not None else None)


def _is_number(cell: str) -> bool:
    return re.fullmatch('[0-9]{1,9}', cell) is not None


def _from_row(row: list[str]) -> Entry | None:
    numbers = [int(cell) for cell in row if _is_number(cell)]
    names = [cell for cell in row if cell and not _is_number(cell)]
    if not names or len(numbers) not in (0, 1, 3, 4):
        return None
    if len(numbers) < 2:
        return Entry(names[0], *numbers)
    if max(numbers[-3:]) > 255:
        return None
    return Entry(names[0], tuple(numbers[-3:]))  # of four, the first is the number of the class


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in UTF-16 with a byte order mark.

    Raises:
        DataError: It is in another encoding, or cannot be read.
    """
    try:
        data = read_file(path)
        return data.decode('utf-16' if data[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig')
    except OSError as error:
        raise DataError(f'{path} cannot be read: {error.strerror}.') from error
    except UnicodeDecodeError as error:
        raise DataError(
            f'{path} is not in UTF-8: byte {data[error.start]:#x} at {error.start}. It begins with {_read_as(data)}.',
            f'Replace it by a file in UTF-8: iconv -f {_ENCODINGS[0]} -t utf-8 {path.name} > utf8.txt, or with the '
            'encoding in which the words are right.',
        ) from error


def _read_as(data: bytes) -> str:
    """Show how a text begins in the encodings that it may have."""
    found = {encoding: data.decode(encoding, 'replace').split('\n')[0].strip()[:20] for encoding in _ENCODINGS}
    return ', '.join(f'{text!r} in {encoding}' for encoding, text in found.items() if '\ufffd' not in text)


def parse_names(texts: Sequence[str]) -> list[Entry]:
    """Parse ``--classes``: a file, names in the order of the values, or ``VALUE=NAME`` pairs.

    Raises:
        UserError: The file has another form, or only some of the names have values.
    """
    if len(texts) == 1 and Path(texts[0]).is_file():
        entries = read_names(Path(texts[0]))
        if not entries:
            raise UserError(f'--classes {texts[0]} is not a list of names, with or without values or colors.')
        return entries
    entries = []
    for text in texts:
        value, equals, name = text.partition('=')
        entries.append(Entry(name, parse_value(value)) if equals else Entry(text))
    if len({entry.value is None for entry in entries}) > 1:
        raise UserError('--classes mixes names with and without values.', 'Write all as VALUE=NAME.')
    return entries


def parse_value(text: str) -> int | Color:
    """Parse a value of a label map, such as ``255`` or ``#ff8000``; raises UserError."""
    if _is_number(text):
        return int(text)
    if re.fullmatch(r'#[0-9a-fA-F]{6}', text):
        return tuple(bytes.fromhex(text[1:]))
    raise UserError(f'{text!r} is not a value of a label map.', 'Write an integer, or a color such as #ff8000.')
