"""Numbers, ids, polygons and RLE of COCO files as exporters write them, and the values that they stand for."""

import math
from collections.abc import Mapping, Sequence
from operator import mul

from .masks import decode_counts

INF = math.inf
_DEPTH = 5  # lists in lists, beyond which it is not a polygon


def to_number(value: object) -> int | float | None:
    """Return the finite number that a value is, or a string says; None if it is neither."""
    if isinstance(value, str):
        try:
            value = int(value) if len(value) < 20 else float(value)
        except ValueError:
            try:
                value = float(value)
            except ValueError:
                return None
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:  # an integer beyond float
        return None


def to_id(value: object) -> object:
    """Return an id in a form in which ``'1'``, ``'01'`` and 1 are equal; None if the value cannot be an id."""
    if isinstance(value, str):
        text = value.strip()
        number = to_number(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
        return value if number is None else number
    return value if isinstance(value, (int, float)) and value == value else None  # NaN differs from itself


def to_size(value: object) -> int | None:
    """Return a side of an image in whole pixels above 0; None if the value is something else."""
    number = to_number(value)
    return int(number) if number is not None and number > 0 and number == int(number) else None


def repair_box(value: object) -> list[int | float] | None:
    """Return the four numbers of a box; None if they are not there."""
    if not isinstance(value, list) or len(value) != 4:
        return None
    numbers = value if _are_finite(value) else [to_number(part) for part in value]
    return None if None in numbers else numbers


def are_polygons(mask: list) -> bool:
    """Return True if a mask is a list of polygons in COCO's form."""
    try:
        for polygon in mask:
            # NaN, infinity and strings show in the sum.
            if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2 or not -INF < sum(polygon) < INF:
                return False
    except (OverflowError, TypeError):
        return False
    return True


def _are_finite(values: list) -> bool:
    """Return True for a list of finite numbers; a few lists of large ones may give False, too."""
    try:
        return -INF < sum(values) < INF
    except (OverflowError, TypeError):
        return False


def repair_polygons(node: list) -> tuple[list[list[int | float]] | None, dict[str, None]]:
    """Bring polygons into COCO's form, a list of lists of numbers.

    Args:
        node: ``segmentation`` as it is in the file.

    Returns:
        The polygons, and the kinds of their defects. The polygons are None if they cannot be repaired; then the last
        kind is the reason.
    """
    kinds: dict[str, None] = {}
    polygons: list[list] = []
    if not _collect(node, 0, polygons, kinds):
        return None, kinds | {'invalid mask': None}
    repaired = []
    small = False
    for polygon in polygons:
        numbers = polygon
        if not _are_finite(polygon):
            numbers = [to_number(value) for value in polygon]
            if None in numbers:
                return None, kinds | {'invalid mask': None}
            if any(isinstance(value, str) for value in polygon):
                kinds['number is a string'] = None
        if len(numbers) % 2:
            return None, _last(kinds, 'odd polygon')
        if len(numbers) < 6:
            small = True
        else:
            repaired.append(numbers)
    if small and not repaired:
        return None, _last(kinds, 'polygon below 3 points')
    return repaired, kinds | ({'polygon below 3 points': None} if small else {})


def _last(kinds: dict[str, None], kind: str) -> dict[str, None]:
    kinds.pop(kind, None)
    return {**kinds, kind: None}


def _collect(node: list, depth: int, polygons: list[list], kinds: dict[str, None]) -> bool:
    """Collect the polygons in nested lists; returns False if there is something else in them."""
    lists = [part for part in node if isinstance(part, list)]
    if node and not lists:
        polygons.append(node)
        if depth != 1:
            kinds['nested polygon' if depth else 'flat polygon'] = None
        return True
    if len(lists) < len(node) or depth > _DEPTH:
        return False
    if len(node) >= 3 and all(len(part) == 2 and not any(isinstance(v, list) for v in part) for part in node):
        kinds['polygon of points'] = None
        polygons.append([value for point in node for value in point])
        return True
    if not node:
        kinds['empty polygon'] = None
    return all([_collect(part, depth + 1, polygons, kinds) for part in node])


def is_rle(mask: object) -> bool:
    """Return True if a mask has the fields of RLE: size, and counts as a string or as numbers."""
    if not isinstance(mask, Mapping):
        return False
    size, counts = mask.get('size'), mask.get('counts')
    return (
        isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int for side in size)
        and (isinstance(counts, str) or (isinstance(counts, list) and all(type(count) is int for count in counts)))
    )


def repair_rle(mask: Mapping) -> dict | None:
    """Return an RLE with numbers instead of strings; None if it is not one."""
    size, counts = mask.get('size'), mask.get('counts')
    size = [to_size(side) for side in size] if isinstance(size, list) else size
    counts = [to_number(count) for count in counts] if isinstance(counts, list) else counts
    repaired = {**mask, 'size': size, 'counts': counts}
    return repaired if is_rle(repaired) else None


def area_of(mask: object, box: Sequence[float]) -> float:
    """Return the area of a mask, polygons or RLE, in pixels; of the box if there is no mask."""
    try:
        if isinstance(mask, list) and mask:
            area = sum(map(_polygon_area, mask))
        elif is_rle(mask):
            counts = mask['counts']
            area = sum((counts if isinstance(counts, list) else decode_counts(counts.encode()) or [])[1::2])
        else:
            area = max(box[2], 0) * max(box[3], 0)
        return area if math.isfinite(area) else 0.0
    except (OverflowError, UnicodeEncodeError):  # numbers beyond float; counts that are not ASCII
        return 0.0


def _polygon_area(polygon: Sequence[float]) -> float:
    """Return the area of a polygon by the shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    return abs(sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, ys, xs[1:] + xs[:1]))) / 2
