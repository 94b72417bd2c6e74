"""Numbers, ids, boxes, polygons and RLE of COCO files as exporters write them, and the values that they stand for."""

import math
from collections.abc import Iterator, Mapping, Sequence
from operator import mul

import numpy as np

INF = math.inf
# COCO's boxes and polygons are rounded: they may extend beyond the image by this many pixels.
ROUNDING = 2.0
_DEPTH = 5  # lists in lists, beyond which it is not a polygon
_LONGEST_RUN = 7  # characters of a run length: 32 bits


def to_number(value: object) -> int | float | None:
    """Return the finite number that a value is, or a string says; None if it is neither."""
    if isinstance(value, str):
        try:
            value = int(value) if len(value) < 20 and value.strip('+-').isdigit() else float(value)
        except ValueError:
            return None
    try:
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond float
        return None
    return value if number else None


def to_id(value: object) -> object:
    """Return an id in a form in which ``'1'``, ``'01'`` and 1 are equal; None if the value cannot be an id."""
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else value
    return value if isinstance(value, (int, float)) and -INF < value < INF else None


def to_size(value: object) -> int | None:
    """Return a side of an image in whole pixels above 0; None if the value is something else."""
    number = to_number(value)
    return int(number) if number is not None and number > 0 and number == int(number) else None


def to_numbers(values: object) -> list[int | float] | None:
    """Return a list of numbers, the list itself if it is one; None if a value is not a number."""
    if not isinstance(values, list):
        return None
    if are_finite(values):
        return values
    numbers = [to_number(value) for value in values]
    return None if None in numbers else numbers


def are_finite(values: list) -> bool:
    """Return True for a list of finite numbers; a few lists of large ones may give False, too."""
    try:
        return math.isfinite(sum(values))  # NaN, infinity and strings show in the sum, integers beyond float raise
    except (OverflowError, TypeError):
        return False


def extent(polygons: Sequence[Sequence[float]]) -> tuple[float, float, float, float]:
    """Return the bounding rectangle of polygons: left, top, right, bottom."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def is_inside(corners: Sequence[float], width: float, height: float) -> bool:
    """Return True if a rectangle (left, top, right, bottom) extends beyond an image by no more than rounding does."""
    left, top, right, bottom = corners
    return max(-left, -top, right - width, bottom - height) <= ROUNDING


def is_mask(mask: object) -> bool:
    """Return True for polygons or RLE in COCO's form."""
    if not isinstance(mask, list):
        return isinstance(mask, dict) and _is_rle(mask)
    isfinite = math.isfinite
    try:
        for polygon in mask:  # without a call for each polygon: files have a million
            if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2 or not isfinite(sum(polygon)):
                return False
    except (OverflowError, TypeError):
        return False
    return True


def _is_rle(mask: Mapping) -> bool:
    size, counts = mask.get('size'), mask.get('counts')
    sides = isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)
    runs = isinstance(counts, str) or (isinstance(counts, list) and all(type(count) is int for count in counts))
    return sides and runs and _is_decodable(mask)


def _is_decodable(mask: Mapping) -> bool:
    """Return True if the run lengths of RLE are not negative, and fill the image."""
    counts, (height, width) = run_lengths(mask), mask['size']
    return counts is not None and min(counts, default=0) >= 0 and sum(counts) == height * width


def repair_mask(mask: object) -> tuple[list | dict | None, str]:
    """Bring a mask that is not in COCO's form into it.

    Returns:
        The mask, None if it cannot be repaired; and the kind of the defect.
    """
    if isinstance(mask, Mapping):
        size, counts = mask.get('size'), mask.get('counts')
        size = [to_size(side) for side in size] if isinstance(size, list) else None
        repaired = {**mask, 'size': size, 'counts': to_numbers(counts) if isinstance(counts, list) else counts}
        return (repaired, 'number is a string') if _is_rle(repaired) else (None, 'invalid mask')
    try:
        polygons = [to_numbers(polygon) for polygon in _find_polygons(mask)]
    except ValueError:
        return None, 'invalid mask'
    if any(polygon is None or len(polygon) % 2 for polygon in polygons):
        return None, 'invalid mask'
    large = [polygon for polygon in polygons if len(polygon) >= 6]
    if len(large) < len(polygons):
        return large or None, 'polygon below 3 points'
    parts = mask and isinstance(mask[0], list) and not any(isinstance(value, list) for part in mask for value in part)
    strings = parts and len(large) == len(mask)
    return large, 'number is a string' if strings else 'polygons in another form'


def _find_polygons(node: object, depth: int = 0) -> Iterator[list]:
    """Yield the polygons in nested lists, points as two numbers of them; raises ValueError for something else."""
    lists = [part for part in node if isinstance(part, list)] if isinstance(node, list) else None
    if lists is None or depth > _DEPTH or (lists and len(lists) < len(node)):
        raise ValueError
    if node and not lists:
        yield node
    elif len(node) >= 3 and all(len(part) == 2 and not any(isinstance(v, list) for v in part) for part in node):
        yield [value for point in node for value in point]
    else:
        for part in node:
            yield from _find_polygons(part, depth + 1)


def mask_area(mask: object) -> float:
    """Return the area of polygons or RLE in pixels; 0 for other values."""
    try:
        area = sum(map(_polygon_area, mask) if isinstance(mask, list) else (run_lengths(mask) or [])[1::2])
        return area if math.isfinite(area) else 0.0
    except OverflowError:  # numbers beyond float
        return 0.0


def _polygon_area(polygon: Sequence[float]) -> float:
    """Return the area of a polygon by the shoelace formula."""
    xs, ys = polygon[0::2], polygon[1::2]
    return abs(sum(map(mul, xs, ys[1:] + ys[:1])) - sum(map(mul, ys, xs[1:] + xs[:1]))) / 2


def run_lengths(mask: Mapping) -> list[int] | None:
    """Return the run lengths of RLE; None if its code is invalid.

    The C code of pycocotools does not check the code, and reads and writes outside its arrays for an invalid one.
    From the third on, a run length is stored as its difference to the one before the last, in groups of five bits,
    lowest first, each in a character from ``'0'``; bit 5 means that more follow, bit 4 of the last is the sign.
    """
    code = mask['counts']
    if isinstance(code, list):
        return code
    code = code if isinstance(code, bytes) else code.encode(errors='surrogatepass')
    bits = np.frombuffer(code, np.uint8).astype(int) - 48
    ends = np.flatnonzero(bits & 0x20 == 0)
    lengths = np.diff(ends, prepend=-1)
    if ((bits < 0) | (bits >= 64)).any() or lengths.sum() < len(bits) or lengths.max(initial=0) > _LONGEST_RUN:
        return None
    if not len(bits):
        return []
    starts = ends - lengths + 1
    shifts = 5 * (np.arange(len(bits)) - np.repeat(starts, lengths))
    counts = np.add.reduceat((bits & 0x1F) << shifts, starts) - (bits[ends] >> 4 << 5 * lengths)
    for first in (1, 2):
        counts[first::2] = counts[first::2].cumsum()
    return counts.tolist()
