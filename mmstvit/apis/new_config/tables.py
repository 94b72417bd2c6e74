"""Tables with a row for each image or object: CSV with a header, or JSON lines.

The header names the columns. The cells have to agree with it: the names are those of images, boxes are inside them.
"""

import csv
import functools
import io
import itertools
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

import orjson

from mmstvit.datasets.importers import ImageAnnotations, ImportedObject
from mmstvit.errors import DataError
from mmstvit.fileio import IMAGE_SUFFIXES, image_size
from mmstvit.rules.headers import thin_out

from .class_names import parse_names, read_text
from .detection_formats import describe_files
from .evidence import Evidence
from .folder import ALL, SPLIT_NAMES, Folder, find_split
from .image_classes import describe_classes
from .instances import describe_missing
from .options import Data, Options, first_names
from .unread import find_format

SUFFIXES = ('.csv', '.tsv', '.jsonl')
_SAMPLE = 200  # rows that are looked at
_MANY = 20  # images of which a table describes the data, if there are so many
_CLASS = ('class', 'label', 'category', 'species', 'breed', 'name', 'labelname', 'classname', 'target', 'diagnosis',
          'categories', 'categoryid', 'classid', 'labelid', 'labels')  # fmt: skip
# Names of the columns of a box, and whether the last two are its width and height.
_BOXES = {
    ('xmin', 'ymin', 'xmax', 'ymax'): False,
    ('x1', 'y1', 'x2', 'y2'): False,
    ('left', 'top', 'right', 'bottom'): False,
    ('xmin', 'ymin', 'width', 'height'): True,
    ('left', 'top', 'width', 'height'): True,
    ('bboxx', 'bboxy', 'bboxwidth', 'bboxheight'): True,  # of Make Sense
}
_SIDES = {side for box in _BOXES for side in box}
_HF_BOX = ('left', 'top', 'width', 'height')  # of a box in a list of Hugging Face
_NUMBER = re.compile(r'-?\d+(\.\d*)?')
_INSIDE = 0.95  # share of the boxes that have to be inside their images
_RENAME = 'Its first line has to name the columns: image,class, or for boxes image,xmin,ymin,xmax,ymax,class.'
_CALL = 'Call it class and the others something else, or keep two columns: image,class (for boxes: docs/own_data.md).'
_NUMBERS = 'Numbers cannot be learned here, only classes: write a column of classes, such as ranges of the numbers.'
_LISTS = 'Write a row for each box: image,xmin,ymin,xmax,ymax,class; or outlines in COCO format (docs/own_data.md).'
_ONE = 'Several classes per image are not supported: keep one class for each image, or remove these rows.'
_ONE_WORD = 'Write one class in each cell: image,class. Several classes per image are not supported.'
_ONE_ROW = (
    'For a class per image keep one row: several classes are not supported. For boxes the first line has to be '
    'image,xmin,ymin,xmax,ymax,class.'
)
_PATHS = 'Write the path of each image, as seen from the folder of the data, in one column.'
_ANSWERS = (('true', 'false'), ('1', '0'), ('yes', 'no'))
_FEW = 5  # classes that are numbers and no measurements


class Row(NamedTuple):
    """Content of a row: the name of an image, the class, the four cells of a box, and the split."""

    name: str
    label: str
    box: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class Table:
    """A table about images.

    Args:
        file: The file, relative to the root.
        columns: What the columns are, for messages.
        rows: The rows.
        box: Names of the columns of a box; empty for a class per image.
    """

    file: str
    columns: str
    rows: Sequence[Row]
    box: tuple[str, ...]

    def __str__(self) -> str:
        return f'{self.file}: {self.columns}'


def look_for_box_tables(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for tables of boxes."""
    return _look(folder, boxes=True)


def look_for_class_tables(folder: Folder, options: Options) -> Evidence:
    """Collect evidence for tables of classes of images, and say which tables cannot be read."""
    evidence = _look(folder, boxes=False)
    for table in evidence.found:
        if cells := _find_combined({row.label for row in table.rows[:_SAMPLE]}):
            evidence.add_against(f'cells of {table.file} such as {cells} may be several classes of an image')
        evidence.images |= {image: row.label for image, row in _find_images(table, folder) if image is not None}
    return evidence


@functools.lru_cache(maxsize=1)  # for both kinds of tables
def _read_tables(folder: Folder) -> tuple[list[Table], dict[str, tuple[str, str]], set[str]]:
    """Read the tables of a folder.

    Returns:
        The tables; file -> problem and remedy of those that are not understood; and images that all of them name.
    """
    read, tables, unread, images = {}, [], {}, set()
    for file in folder.with_suffix(*SUFFIXES):
        if find_format(file, folder.read_head(file)):
            continue
        try:
            rows = _read_cells(folder, file)
            if by_column := _find_image_columns(folder, file, rows):
                images |= {*next(iter(by_column.values()))} - {None}
                read[file] = rows, [*by_column]
            elif cells := _find_ambiguous(folder, rows):
                images |= {image for cell in cells for image in folder.images_named(cell)}
                raise DataError(f'{file} names {cells[0]}, and several folders have an image of this name', _PATHS)
        except DataError as error:
            unread[file] = error.problem, error.remedy
    for file, (rows, columns) in read.items():
        # Tables of several splits are one: that of validation may have an image for each class.
        others = (
            other for name, (other, _) in read.items() if name != file and ALL not in map(find_split, (name, file))
        )
        sample = [*rows, *(row for other in others if other[0].keys() == rows[0].keys() for row in other)]
        try:
            tables.append(_understand(file, rows, columns, thin_out(sample, _SAMPLE)))
        except DataError as error:
            unread[file] = error.problem, error.remedy
    return tables, unread, images


def _look(folder: Folder, boxes: bool) -> Evidence:
    read, unread, images = _read_tables(folder)
    evidence = Evidence(images=dict.fromkeys(images, ''))
    tables = [table for table in read if bool(table.box) == boxes]
    splits = {table.file: find_split(table.file) for table in tables}
    if 'train' in splits.values():  # beside it, sample_submission.csv says nothing
        tables = [table for table in tables if splits[table.file] != ALL]
    if len({splits[table.file] for table in tables}) < len(tables):
        evidence.add_against(
            'several tables', f'Name one: new_config.py {shlex.quote(str(folder.root / tables[0].file))}'
        )
    if not boxes and not tables:
        evidence.against += unread.values()
        evidence.used |= unread.keys()
    evidence.found = tables
    evidence.used |= {table.file for table in tables}
    evidence.reasons = [*map(str, tables)]
    named = {row.name for table in tables for row in table.rows}
    evidence.coverage = min(1.0, len(named) / max(1, len(folder.images)))
    return evidence


def _read_cells(folder: Folder, file: str) -> Sequence[Mapping[str, str]]:
    """Read the rows of a table, column -> cell; none for a file of another kind.

    Raises:
        DataError: It cannot be read, or has no header.
    """
    text = read_text(folder.root / file)
    if file.lower().endswith('.jsonl'):
        try:
            rows = [orjson.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError:
            return []
        rows = [row for row in rows if isinstance(row, dict)]
        return [{key: str(cell) for key, cell in part.items()} for row in rows for part in _split_lists(row)]
    mark = max('\t;,', key=text.partition('\n')[0].count)
    table = csv.DictReader(io.StringIO(text), delimiter=mark, skipinitialspace=True)
    try:
        names = table.fieldnames or ()
        rows = [{key: (cell or '').strip() for key, cell in row.items() if key is not None} for row in table]
    except csv.Error as error:
        raise DataError(f'{folder.root / file} is not a table: {error}.', 'Correct or remove the file.') from error
    if any(folder.find_image(name) for name in names if not name.isdigit()):
        raise DataError(f'{file} is a table of images without a header: it begins with {",".join(names)[:80]}', _RENAME)
    return rows


def _split_lists(row: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield a row for each object of a row of an image with lists of boxes and classes, as Hugging Face has it."""
    lists = next((cell for cell in row.values() if isinstance(cell, dict) and isinstance(cell.get('bbox'), list)), None)
    if lists is None:
        yield row
        return
    rest = {key: cell for key, cell in row.items() if cell is not lists and key not in _HF_BOX}
    same = [key for key, value in lists.items() if isinstance(value, list) and len(value) == len(lists['bbox'])]
    for values in zip(*(lists[key] for key in same), strict=True):
        found = dict(zip(same, values, strict=True))
        box = found.pop('bbox')
        box = box if isinstance(box, list) and len(box) == 4 else [box] * 4  # an error says what is no number
        yield rest | found | dict(zip(_HF_BOX, box, strict=True))
    if not lists['bbox']:
        yield rest | dict.fromkeys([*same, *_HF_BOX], '')


def _find_image_columns(folder: Folder, file: str, rows: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """Find the columns that name many images, that of most images first, and others that name other files.

    A few images may be icons of the classes, but not in the table of a split.

    Returns:
        Column -> the image in each row of a sample.
    """
    found, few = {}, {}
    sample = thin_out(rows, _SAMPLE)
    near = file.rpartition('/')[0]
    least = 0 if file == folder.named or find_split(file) != ALL else min(_MANY, 0.3 * len(folder.images))
    for name in rows[0] if rows and len(rows[0]) > 1 else ():
        if name.isdigit() or _key(name) in _SIDES:
            continue
        images = [folder.find_image(cell, near) if (cell := row.get(name)) else None for row in sample]
        if 2 * images.count(None) < len(images):
            (found if len({*images} - {None}) > least else few)[name] = images
    if few and not found:
        count, table = len({*next(iter(few.values()))} - {None}), shlex.quote(str(folder.root / file))
        raise DataError(
            f'{file} names {count} of {len(folder.images)} images', f'To learn these alone: new_config.py {table}'
        )
    if not found:
        for name in rows[0] if rows else ():
            cells = [cell for row in sample if '.' in (cell := row.get(name) or '')]
            pairs = [(cell, folder.find_image(PurePosixPath(cell.replace('\\', '/')).stem, near)) for cell in cells]
            if pairs and all(image for _, image in pairs):
                names = f'{file} names {pairs[0][0]}, and the image is called {pairs[0][1]}'
                raise DataError(names, f'Write the names of the images in the column {name}.')
        return {}
    first = max(found, key=lambda name: len({*found[name]}))
    files = [
        name for name in found if all(row[name].lower().endswith(IMAGE_SUFFIXES) for row in sample if row.get(name))
    ]
    return {first: found[first]} | {name: found[name] for name in files if found[name] != found[first]}


def _find_ambiguous(folder: Folder, rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the cells of a column that names images by names that several of them have; none if there is none."""
    sample = thin_out(rows, _SAMPLE)
    for name in rows[0] if rows and len(rows[0]) > 1 else ():
        cells = [cell for row in sample if (cell := row.get(name)) and not cell.isdigit()]
        cells = [cell for cell in cells if folder.images_named(cell)]
        if 2 * len(cells) > len(sample):
            return cells
    return []


def _understand(
    file: str, rows: Sequence[Mapping[str, str]], named: Sequence[str], sample: Sequence[Mapping[str, str]]
) -> Table:
    """Find what the columns of a table mean.

    Args:
        file: The table.
        rows: Its rows.
        named: Columns that name images.
        sample: Rows that are looked at, also of other tables like this one.

    Raises:
        DataError: It is not clear.
    """
    rows, sample = ([*{(*row.items(),): row for row in part}.values()] for part in (rows, sample))
    columns = {name: [row.get(name, '') for row in sample] for name in rows[0]}
    image, *others = named
    del columns[image]
    columns = {name: cells for name, cells in columns.items() if name not in others}
    splits = [name for name, cells in columns.items() if _read_splits(name, cells)]
    split_of = _read_splits(splits[0], columns[splits[0]]) if splits else {}
    rest = {name: cells for name, cells in columns.items() if name not in splits[:1]}
    if others and not rest:
        raise DataError(
            f'{file} names several files of each image: {first_names([image, *others])}',
            'If these are images and label maps, keep two columns: the image, and one label map with all classes.',
        )
    by_key = {_key(name): name for name in rest}
    box = tuple(by_key[key] for key in next((keys for keys in _BOXES if by_key.keys() >= {*keys}), ()))
    lists = [(name, cell) for name, cells in rest.items() for cell in cells if cell[:1] in ('[', '{')]
    boxes = [both for both in lists if _has_box(both[1])]
    if lists and not box:
        name, cell = (boxes or lists)[0]
        problem = f'column {name} of {file} has lists in its cells, such as {cell[:80]}'
        raise DataError(problem, _LISTS if boxes else _ONE_WORD)
    repeated = next((name for name, count in Counter(row.get(image) for row in rows).items() if count > 1), None)
    if not box and repeated is not None:
        two = ' and '.join(','.join(row.values())[:80] for row in rows if row.get(image) == repeated)
        raise DataError(
            f'{file} has several rows for an image, and no columns that are known as a box: {two}', _ONE_ROW
        )
    rest = {name: cells for name, cells in rest.items() if name not in box}
    said = [f'images in column {image}', *(f'boxes in {", ".join(box)}' for _ in box[:1])]
    said += [f'splits in {name}' for name in splits[:1]]
    if not box and len(rest) > 1 and {cell for cells in rest.values() for cell in cells} <= {'0', '1', '0.0', '1.0'}:
        labels = _join_one_hot(file, rows, [*rest])
        said.append(f'a column of 0 and 1 per class: {first_names([*rest])}')
    else:
        label = _find_label_column(file, rest, bool(box))
        labels = [row.get(label, '') for row in rows]
        said.append(f'classes in {label}')
        unused = [name for name in rest if name and name != label]
        if doubtful := [name for name in unused if _may_be_split(name, rest[name])]:
            raise DataError(
                f'column {doubtful[0]} of {file} may say which images are for validation, but has the values '
                f'{first_names(sorted({*rest[doubtful[0]]}))}',
                'Write train and val in it, or remove it.',
            )
        said += [f'not used: {first_names(unused, 6)}'] if unused else []
    read = [
        Row(
            row.get(image, ''),
            name,
            tuple(row.get(side, '') for side in box),
            split_of.get(row.get(splits[0], '').lower(), ALL) if splits else find_split(file),
        )
        for row, name in zip(rows, labels, strict=True)
    ]
    return Table(file, '; '.join(said), read, box)


def _read_splits(name: str, cells: Sequence[str]) -> Mapping[str, str]:
    """Return the splits that the cells of a column mean: their names, or true and false as in fastai's ``is_valid``."""
    lower = [cell.lower() for cell in cells]
    if {*lower} <= SPLIT_NAMES.keys():
        return SPLIT_NAMES
    named = re.fullmatch(r'(?:is|in|for)[\W_]*([a-z]+)', name.lower())
    yes, no = next(((yes, no) for yes, no in _ANSWERS if {yes, no} == {*lower}), ('', ''))
    split = SPLIT_NAMES.get(named[1], '') if named else ''
    if not (split and yes) or (split != 'train') != (2 * lower.count(yes) <= len(lower)):
        return {}  # most images are for training: else it may say which are sound
    return {yes: split, no: 'val' if split == 'train' else 'train'}


def _may_be_split(name: str, cells: Sequence[str]) -> bool:
    """Return True if a column is called like one of splits, and answers yes or no."""
    called = _key(name) in ('split', 'subset', 'partition') or find_split(name) != ALL
    return called and {cell.lower() for cell in cells} in map(set, _ANSWERS)


def _key(name: str) -> str:
    return re.sub(r'[\W_]', '', name).lower()


def _join_one_hot(file: str, rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> list[str]:
    """Return the class of each row from columns of 0 and 1 per class; raises DataError if a row has not one class."""
    chosen = [[name for name in names if row.get(name) in ('1', '1.0')] for row in rows]
    if wrong := [number for number, own in enumerate(chosen, 2) if len(own) != 1]:
        raise DataError(
            f'{file} has a column of 0 and 1 per class, and {len(wrong)} of {len(rows)} rows do not have one class '
            f'(first: line {wrong[0]})',
            _ONE,
        )
    return [own[0].strip() for own in chosen]


def _find_label_column(file: str, columns: Mapping[str, Sequence[str]], boxes: bool) -> str:
    """Return the column of the class: by its name, or the only one; of several that say the same, the one with words.

    Raises:
        DataError: There is none, or its cells are no classes.
    """
    if not columns:
        raise DataError(f'{file} has no column of a class', 'Add one: class, with the name of the class in every row.')
    named = [name for name in columns if _key(name) in _CLASS] or [*columns]
    named.sort(key=lambda name: all(cell.isdigit() for cell in columns[name]))
    words = bool(named) and _key(named[0]) in _CLASS
    numbers = [name for name, cells in columns.items() if all(map(_NUMBER.fullmatch, cells))]
    if len({tuple(map(columns[name].index, columns[name])) for name in named}) != 1 or (len(named) > 1 and not words):
        listed = first_names([f'{name} ({cells[0][:40]!r})' for name, cells in columns.items()], 8)
        raise DataError(
            f'{file} names images, and it is not clear which column is the class: {listed}',
            _LISTS if any(map(_has_coordinates, columns.values())) else _CALL,
        )
    if not boxes and len({*numbers} - {*named}) > 3:
        raise DataError(f'{file} has columns of numbers that may be boxes: {first_names(numbers, 8)}', _RENAME)
    cells = columns[named[0]]
    classes = {*cells} - {''}
    tags = next((c for c in classes if len(parts := re.split(r'[\s,;|]+', c)) > 1 and {*parts} <= classes), '')
    odd = tags or next((cell for cell in classes if re.fullmatch(r'-?\d*\.\d+', cell)), '')
    if odd or (not boxes and not 1 < len(classes) <= len(cells) / 2):
        seen = f'cells such as {odd[:80]}' if odd else f'{len(classes)} values in {len(cells)} rows'
        remedy = _ONE if tags else _NUMBERS if all(map(_NUMBER.fullmatch, classes)) else _RENAME
        remedy = _LISTS if _has_coordinates(cells) else f'{remedy} Keypoints are not supported.' if odd else remedy
        raise DataError(f'column {named[0]} of {file} has {seen}: that is not one class per image', remedy)
    return named[0]


def _has_box(cell: str) -> bool:
    """Return True if a list has four or more numbers, not all of them 0 and 1 as those of a class are."""
    numbers = re.findall(r'(?<![\w.])-?\d+(?:\.\d*)?(?![\w.])', cell)
    return len(numbers) >= 4 and not {*numbers} <= {'0', '1', '0.0', '1.0'}


def _has_coordinates(cells: Sequence[str]) -> bool:
    """Return True if most cells have the four or more numbers of a box, however they are written."""
    return 2 * sum(len(re.findall(r'\d+', cell)) >= 4 for cell in cells) > len(cells)


def _find_combined(labels: Set[str]) -> str:
    """Return two classes of which one has all words of the other and more, if many are like that: lists of tags."""
    words = {label: frozenset(re.findall(r'[^\W_]+', label)) for label in labels}
    found = [
        (one, other)
        for one, other in itertools.permutations(words, 2)
        if len(words[one]) > 1 and words[one] < words[other]
    ]
    return ' and '.join(min(found)) if 3 * len({label for both in found for label in both}) > len(labels) else ''


def _find_images(table: Table, folder: Folder) -> list[tuple[str | None, Row]]:
    near = table.file.rpartition('/')[0]
    images = {name: folder.find_image(name, near) for name in {row.name for row in table.rows} if name}
    return [(images.get(row.name), row) for row in table.rows]


def _resolve(tables: Sequence[Table], folder: Folder, options: Options) -> tuple[list, dict, list[str]]:
    """Find the images of all rows.

    Returns:
        Image and row; split -> images, if the tables say it; and lines about what was found.

    Raises:
        DataError: Images are missing, and ``--skip-missing`` is not given; or a number has no name in ``--classes``.
    """
    rows = [both for table in tables for both in _find_images(table, folder)]
    missing = [*dict.fromkeys(row.name for image, row in rows if image is None)]
    total = len({row.name for _, row in rows})
    notes = [str(table) for table in tables]
    notes += describe_missing(missing, total, f'images of {tables[0].file}', folder.root, options)
    names = {
        str(number if entry.value is None else entry.value): entry.name
        for number, entry in enumerate(parse_names(options.classes) if options.classes else ())
    }
    rows = [(image, row._replace(label=_name(row, names))) for image, row in rows if image is not None]
    notes += _warn_of_numbers({row.label for _, row in rows} - {''})
    splits: dict[str, dict[str, None]] = {}
    for image, row in rows:
        splits.setdefault(row.split, {})[image] = None
    given = {} if len(splits) == 1 else {split: [*images] for split, images in splits.items()}
    return rows, given, notes


def _name(row: Row, names: Mapping[str, str]) -> str:
    """Return the class of a row, by its number if there are names."""
    if not names or not row.label:
        return row.label
    if row.label not in names:
        raise DataError(
            f'{row.name} has the class {row.label}, but --classes names the numbers {first_names([*names])}.',
            'Write NUMBER=NAME for each class; or omit --classes if the table has names.',
        )
    return names[row.label]


def read_class_tables(tables: Sequence[Table], folder: Folder, options: Options) -> Data:
    """Read a class for each image.

    Raises:
        DataError: An image is missing or has two classes, or the splits are ambiguous.
    """
    rows, splits, notes = _resolve(tables, folder, options)
    class_of: dict[str, str] = {}
    for image, row in rows:
        if not row.label or class_of.setdefault(image, row.label) != row.label:
            listed = f'{class_of.get(image, "")!r} and {row.label!r}'
            raise DataError(f'{image} has the classes {listed}.', 'Keep one row with one class for each image.')
    _refuse_measurements(class_of)
    notes += [f'not used: {problem}' for problem, _ in _read_tables(folder)[1].values()]
    notes += _count_images_without_row(folder, class_of)
    return describe_classes(class_of, folder, options, notes, given=splits)


def _count_images_without_row(folder: Folder, named: Collection[str]) -> list[str]:
    """Return a line about the images that no row names, if there are any."""
    alone = [image for image in folder.images if image not in named]
    return [f'not used: {len(alone)} images without a row (first: {alone[0]})'] if alone else []


def _warn_of_numbers(names: Set[str]) -> list[str]:
    """Return a warning if the classes are numbers."""
    if not all(map(_NUMBER.fullmatch, names)):
        return []
    listed = first_names(sorted(names, key=float), 8)
    hint = 'name them in this order, with --classes NAME NAME … or NUMBER=NAME'
    return [f'warning: the classes are numbers ({listed}): {hint}; measurements such as ages cannot be learned']


def _refuse_measurements(class_of: Mapping[str, str]) -> None:
    """Refuse many classes that are numbers, most of which have one or two images; raises DataError."""
    counts = Counter(class_of.values())
    many = len(counts) > _FEW and all(map(_NUMBER.fullmatch, counts))
    if many and 2 * sum(count <= 2 for count in counts.values()) > len(counts):
        listed = first_names(sorted(counts, key=float), 8)
        raise DataError(f'The classes are numbers, {listed}, and most of them have one or two images.', _NUMBERS)


def read_box_tables(tables: Sequence[Table], folder: Folder, options: Options) -> Data:
    """Read a box for each row; an image of a row without numbers, or of zeros, has no objects.

    Raises:
        DataError: An image is missing, boxes are not inside their images, or the splits are ambiguous.
    """
    rows, splits, notes = _resolve(tables, folder, options)
    sized = _BOXES[tuple(map(_key, tables[0].box))]
    objects: dict[str, list[ImportedObject]] = {}
    largest, zeros = 0.0, 0
    for image, row in rows:
        objects.setdefault(image, [])
        if not any(row.box):
            continue
        try:
            x, y, *end = map(float, row.box)
        except ValueError:
            raise DataError(
                f'{tables[0].file} has a box {", ".join(row.box)} in {image}.', 'Write 4 numbers.'
            ) from None
        if x == y == max(end) == min(end) == 0:
            zeros += 1
            continue
        largest = max(largest, x, y, *end)
        objects[image].append(ImportedObject(row.label, [x, y, *(end if sized else (end[0] - x, end[1] - y))]))
    notes += [f'no objects: {zeros} rows whose box is 0, 0, 0, 0'] if zeros else []
    notes += _count_images_without_row(folder, objects)
    _check_boxes(objects, folder, largest <= 1, tables[0])
    annotations = {image: ImageAnnotations(found, fractions=largest <= 1) for image, found in objects.items()}
    return describe_files('tables of boxes', annotations, folder, options, notes, given=splits)


def _check_boxes(
    objects: Mapping[str, Sequence[ImportedObject]], folder: Folder, fractions: bool, table: Table
) -> None:
    """Check that boxes are inside their images; raises DataError."""
    outside, centers = [], 0
    for image, found in objects.items():
        width, height = (1, 1) if fractions else image_size(folder.root / image) or (0, 0)
        for item in found:
            x, y, w, h = item.box
            centers += _is_inside(x - w / 2, x + w / 2, width) and _is_inside(y - h / 2, y + h / 2, height)
            if not (w > 0 < h and _is_inside(x, x + w, width) and _is_inside(y, y + h, height)):
                outside.append(f'{[x, y, x + w, y + h]} of {image} with {width}×{height} pixels')
    total = sum(map(len, objects.values()))
    if outside and centers == total and _BOXES[tuple(map(_key, table.box))]:
        raise DataError(
            f'{len(outside)} of {total} boxes of {table.file} are not inside their images (first: {outside[0]}); '
            f'all are if {", ".join(table.box[:2])} is the center.',
            'Write the left and top side of each box: the center minus half of width and height.',
        )
    if len(outside) > (1 - _INSIDE) * total:
        raise DataError(
            f'{len(outside)} of {total} boxes of {table.file} are not inside their images, if its columns '
            f'{", ".join(table.box)} are what they are called (first: {outside[0]}).',
            'Correct the numbers, or the names of the columns.',
        )


def _is_inside(first: float, last: float, side: float) -> bool:
    margin = 0.01 * side + (side > 1)  # a pixel more
    return -margin <= first and last <= side + margin
