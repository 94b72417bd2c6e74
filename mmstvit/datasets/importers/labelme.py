"""JSON files of labelme: a file per image, with shapes."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from mmstvit.datasets.json_files import read_json
from mmstvit.errors import DataError

from .coco_table import ImageAnnotations, ImportedObject

FLAGS = 'a flag of an image'
MASK = 'a shape of the type mask, learned as background'
# Labels for what is not to be learned.
_NO_CLASS = ('__ignore__', '_ignore_', '_background_', '__background__')
_CORNERS_OF_A_CIRCLE = 64


def read_labelme(path: Path) -> ImageAnnotations | None:
    """Read the polygons, rectangles and circles of a file; None if it is JSON of another kind.

    Shapes of one label with the same ``group_id`` are one object. Points, lines and masks in PNG format are not used.

    Raises:
        DataError: The file is not JSON, or a shape has no label or points.
    """
    content = read_json(path)
    if not isinstance(content, Mapping) or not isinstance(content.get('shapes'), list):
        return None
    unused, objects = Counter(), {}
    for number, shape in enumerate(content['shapes'], 1):
        if not _is_sound(shape):
            raise DataError(f'{path}: shape {number} has no label, or no points of two numbers.', 'Correct the file.')
        polygon = to_polygon(shape)
        if shape['label'] in _NO_CLASS:
            unused[f'a shape of {shape["label"]}, learned as background'] += 1
        elif polygon is None:
            unused[f'a shape of the type {shape.get("shape_type", "polygon")}, learned as background'] += 1
        else:
            group = shape.get('group_id')
            key = shape['label'], number if group is None else f'group {group}'
            drawn = shape.get('shape_type') == 'rectangle' and _is_upright(polygon)
            objects.setdefault(key, []).append((polygon, drawn))
    found = []
    for (label, _), parts in objects.items():
        polygons, drawn = zip(*parts, strict=True)
        found.append(ImportedObject(label, polygons=polygons, is_rectangle=all(drawn)))
    size = content.get('imageWidth'), content.get('imageHeight')
    size = size if all(type(side) is int and side > 0 for side in size) else None
    flags = content.get('flags')
    if not content['shapes'] and isinstance(flags, Mapping) and any(value is True for value in flags.values()):
        unused[FLAGS] += 1
    return ImageAnnotations(found, str(content.get('imagePath') or ''), unused=unused, size=size)


def _is_sound(shape: object) -> bool:
    try:
        points = shape['points'] if isinstance(shape['label'], str) else None
        return all(math.isfinite(x) and math.isfinite(y) for x, y in points)
    except (KeyError, OverflowError, TypeError, ValueError):
        return False


def _is_upright(polygon: list[float]) -> bool:
    corners = {*zip(polygon[0::2], polygon[1::2], strict=True)}
    return len(corners) == 4 and len({x for x, _ in corners}) == len({y for _, y in corners}) == 2


def to_polygon(shape: Mapping) -> list[float] | None:
    """Return the outline of a shape as x1, y1, x2, y2, …; None for a shape without an area."""
    points, kind = shape['points'], shape.get('shape_type') or 'polygon'
    if kind == 'rectangle' and len(points) == 2:
        (x1, y1), (x2, y2) = points
        points = [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]
    elif kind == 'circle' and len(points) == 2:
        (x, y), radius = points[0], math.dist(*points)
        turns = [2 * math.pi * i / _CORNERS_OF_A_CIRCLE for i in range(_CORNERS_OF_A_CIRCLE)]
        points = [(x + radius * math.cos(turn), y + radius * math.sin(turn)) for turn in turns]
    elif kind not in ('polygon', 'rectangle') or len(points) < 3:
        return None
    return [coordinate for point in points for coordinate in point]
