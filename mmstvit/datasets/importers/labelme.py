"""JSON files of labelme: a file per image, with shapes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmstvit.datasets.json_files import read_json
from mmstvit.errors import DataError

from .coco_table import CocoTable

# Labels for what is not to be learned.
NO_CLASS = ('__ignore__', '_ignore_', '_background_', '__background__')
_CORNERS_OF_A_CIRCLE = 64


def parse_labelme(path: Path) -> Mapping | None:
    """Parse a file; None if it is JSON of another kind.

    Raises:
        DataError: The file is not JSON, or a shape has no label or points.
    """
    content = read_json(path)
    if not isinstance(content, Mapping) or not isinstance(content.get('shapes'), list):
        return None
    for number, shape in enumerate(content['shapes'], 1):
        points = shape.get('points') if isinstance(shape, Mapping) else None
        try:
            sound = all(math.isfinite(x) and math.isfinite(y) for x, y in points)
        except (TypeError, ValueError):
            sound = False
        if not sound or not isinstance(shape.get('label'), str):
            raise DataError(f'{path}: shape {number} has no label, or no points of two numbers.', 'Correct the file.')
    return content


def read_labelme(root: Path, contents: Mapping[str, Mapping], classes: Sequence[str]) -> CocoTable:
    """Make a table of images and their polygons, rectangles and circles.

    Shapes of one label with the same ``group_id`` are one object. Points, lines and masks in PNG format are not used.

    Args:
        root: Folder of the data set.
        contents: Image -> content of its file.
        classes: Names of the classes.
    """
    table, labels = CocoTable(root, classes), {name: i for i, name in enumerate(classes)}
    for image, content in contents.items():
        table.add_image(image)
        objects: dict[object, list[list[float]]] = {}
        for number, shape in enumerate(content['shapes']):
            if shape['label'] in NO_CLASS:
                table.unused[f'a shape of {shape["label"]}'] += 1
                continue
            polygon = to_polygon(shape)
            if polygon is None:
                table.unused[f'a shape of the type {shape.get("shape_type", "polygon")}'] += 1
                continue
            group = shape.get('group_id')
            key = shape['label'], number if group is None else f'group {group}'
            objects.setdefault(key, []).append(polygon)
        for (label, _), polygons in objects.items():
            table.add_object(labels[label], polygons=polygons)
    return table


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
