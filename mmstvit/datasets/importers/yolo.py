"""YOLO's text files: a line is a class and fractions of the image: a box, a box with keypoints, or a polygon."""

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml

from mmstvit.errors import DataError
from mmstvit.fileio import open_file, read_file

from .coco_table import ImageAnnotations, ImportedObject, parsing

_LINE = re.compile(r'\d{1,9}(?:\.0*)?(?:\s+-?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?){4,}\s*', re.ASCII)
_MOST = 0.9  # share of the lines that a reading has to fit
_SPLITS = dict(train='train', val='val', valid='val', validation='val', test='test')


class _PlainLoader(yaml.SafeLoader):
    """Loader without aliases: a few lines of them may stand for more objects than fit into memory."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f'it has an alias (*{self.peek_event().anchor}), expected the values themselves')
        return super().compose_node(parent, index)


@dataclass
class YoloLabels:
    """Content of a YAML file of YOLO.

    Args:
        names: Names of the classes in their order.
        splits: Split -> folders or files of images, as the file has them.
        path: Value of ``path``, a folder; empty if there is none.
        keypoints: The lines have keypoints after the box.
    """

    names: list[str]
    splits: dict[str, list[str]] = field(default_factory=dict)
    path: str = ''
    keypoints: bool = False


def is_label_file(path: Path) -> bool:
    """Return True if the first line with text in a file is a label of YOLO; an empty file has no objects."""
    try:
        with open_file(path) as file, io.TextIOWrapper(file, 'utf-8-sig') as lines:
            first = next((line for line in lines if line.strip()), None)
    except (OSError, UnicodeDecodeError):
        return False
    return first is None or _LINE.fullmatch(first.strip()) is not None


def read_yolo_yaml(path: Path) -> YoloLabels | None:
    """Read a YAML file; None if it does not describe a data set of YOLO.

    Raises:
        DataError: It is not YAML, or the numbers of the classes have gaps.
    """
    with parsing(path, 'YAML file'):
        content = yaml.load(read_file(path).decode('utf-8-sig'), _PlainLoader)
        if not isinstance(content, Mapping) or not isinstance(content.get('names'), (list, dict)):
            return None
        names = content['names']
        if isinstance(names, Mapping):
            numbers = range(len(names))
            if {*names} != {*numbers}:
                raise DataError(f'{path} numbers its classes {", ".join(map(str, names))}.', 'Number them 0, 1, 2, …')
            names = [names[number] for number in numbers]
        splits: dict[str, list[str]] = {}
        for key, split in _SPLITS.items():
            value = content.get(key)
            if value:
                splits.setdefault(split, []).extend(map(str, value if isinstance(value, list) else [value]))
        if not splits and not content.keys() & {'path', 'nc'} and content.keys() != {'names'}:
            return None
        return YoloLabels([str(name) for name in names], splits, str(content.get('path') or ''), 'kpt_shape' in content)


def find_shapes(paths: Iterable[Path]) -> set[str]:
    """Find what the lines with more than four numbers may be: ``'boxes'`` with keypoints, ``'polygons'``, or both.

    A box has its keypoints in it, and is in the image. The second corner of a polygon is near the others; width and
    height of a box, read as a corner, are not. Lines of several lengths are polygons.
    """
    lines: list[list[float]] = []
    for values in _find_numbers(paths):
        if len(values) > 4:
            lines.append([*map(float, values)])
            if len(values) != len(lines[0]):
                return {'polygons'}
    if not lines:
        return {'polygons'}
    values = np.array(lines)
    corners = values.reshape(len(values), -1, 2) if values.shape[1] % 2 == 0 else None
    flags = values[:, 6::3]
    if (values.shape[1] - 4) % 3 == 0 and np.isin(flags, (-1, 0, 1, 2)).all():  # x, y and visibility
        points, corners = values[:, 4:].reshape(len(values), -1, 3)[..., :2], corners if flags.max() < 2 else None
    elif corners is not None:
        points = corners[:, 2:]
    else:
        return set()
    low, high = (values[:, None, :2] + sign * values[:, None, 2:4] / 2 for sign in (-1, 1))
    margin = (high - low) / 10
    absent = (points <= 0).all(axis=2, keepdims=True)
    inside = (absent | ((points > low - margin) & (points < high + margin))).all(axis=(1, 2))
    in_image = ((low > -0.01) & (high < 1.01)).all(axis=(1, 2))
    found = {'boxes'} if (inside & in_image).mean() >= _MOST else set()
    ends = points.min(axis=1, keepdims=True) - low, points.max(axis=1, keepdims=True) - high
    exact = np.all([np.abs(end) < np.maximum(margin / 4, 0.002) for end in ends], axis=(0, 2, 3)).mean() >= _MOST
    if corners is not None and not (found and exact):
        others = np.delete(corners, 1, axis=1)
        first, last = others.min(axis=1), others.max(axis=1)
        near = (corners[:, 1] >= first - (last - first)) & (corners[:, 1] <= last + (last - first))
        found |= {'polygons'} if near.all(axis=1).mean() >= _MOST else set()
    return found


def are_in_pixels(paths: Iterable[Path]) -> bool:
    """Return True if every line has numbers in pixels where YOLO has fractions."""
    found = False
    for values in _find_numbers(paths):
        if max(map(float, values[:4])) <= 1.5:
            return False
        found = True
    return found


def _find_numbers(paths: Iterable[Path]) -> Iterator[list[str]]:
    """Yield the numbers after the class of each line that is a label."""
    for path in paths:
        for line in read_file(path).decode('utf-8', 'ignore').splitlines():
            if _LINE.fullmatch(line.strip()):
                yield line.split()[1:]


def read_yolo(path: Path, described: YoloLabels) -> ImageAnnotations:
    """Read the labels of an image; keypoints after a box are not used.

    Args:
        path: The file.
        described: Names of the classes, and whether there are keypoints.

    Raises:
        DataError: A line is not a label, or names a class that does not exist; the message has file and line.
    """
    try:
        lines = read_file(path).decode('utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path} cannot be read: {error}.', 'Repair or remove the file.') from error
    objects: dict[str, ImportedObject] = {}
    unused = Counter()
    for number, line in enumerate(lines, 1):
        if line in objects:
            unused['a line that is there twice'] += 1
        elif line.strip():
            label, values = _parse(line, f'{path}, line {number}', described)
            if len(values) == 4 or described.keypoints:
                x, y, w, h = values[:4]
                objects[line] = ImportedObject(label, [x - w / 2, y - h / 2, w, h])
                unused['keypoints'] += len(values) > 4
            else:
                objects[line] = ImportedObject(label, polygons=[values])
    return ImageAnnotations([*objects.values()], fractions=True, unused=+unused)


def _parse(line: str, where: str, described: YoloLabels) -> tuple[int, list[float]]:
    """Return class and fractions of a line; raises DataError."""
    if not _LINE.fullmatch(line.strip()):
        raise DataError(
            f'{where} is {line.strip()[:80]!r}, expected a class and fractions of the image.', 'Correct the line.'
        )
    first, *rest = line.split()
    count = len(described.names)
    label, values = int(float(first)), [float(value) for value in rest]
    if label >= count:
        raise DataError(
            f'{where} has the class {label}, but there are {count} names (0 to {count - 1}).',
            'Correct the line, or the names.',
        )
    if len(values) == 5 and (place := 'last' if rest[-1].isdecimal() else 'first' if rest[0].isdecimal() else ''):
        raise DataError(
            f'{where} has 5 numbers after the class, of which the {place} is whole: the number of a tracked object?',
            'Remove it from every line that has 5 numbers: needed are class, x, y, width, height.',
        )
    if len(values) == 5:
        raise DataError(
            f'{where} has 5 numbers after the class: a prediction with its score, not a label.',
            'Remove the last number of each line, or predict again without save_conf.',
        )
    if len(values) % 2 and (not described.keypoints or (len(values) - 4) % 3):
        raise DataError(f'{where} has {len(values)} numbers, expected 4 of a box or pairs of a polygon.')
    fractions = values[:4] if described.keypoints else values
    if not all(-0.5 <= value <= 1.5 for value in fractions):
        raise DataError(f'{where} has numbers that are not fractions (0 to 1).', 'Correct the line.')
    return label, values
