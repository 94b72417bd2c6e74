"""Numbers, ids, boxes, polygons and RLE of COCO files as exporters write them, and the values that they stand for."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmstvit.datasets.importers.coco_table import polygon_area

INF = math.inf
# COCO's boxes and polygons are rounded: they may extend beyond the image by this many pixels.
ROUNDING = 2.0
_DEPTH = 5  # lists in lists, beyond which it is not a polygon
_LONGEST_RUN = 7  # characters of a run length: 32 bits
_MOST_PIXELS = 1 << 32  # pycocotools counts pixels in 32 bits
_BATCH = 4096  # masks that are decoded at once


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
    """Return a list of numbers; None if a value is not a number."""
    numbers = [to_number(value) for value in values] if isinstance(values, list) else [None]
    return None if None in numbers else numbers


def is_inside(corners: Sequence[float], width: float, height: float) -> bool:
    """Return True if a rectangle (left, top, right, bottom) extends beyond an image by no more than rounding does."""
    left, top, right, bottom = corners
    return max(-left, -top, right - width, bottom - height) <= ROUNDING


def are_polygons(mask: object) -> bool:
    """Return True for polygons in COCO's form; a few lists of numbers near the limit of float may give False."""
    isfinite = math.isfinite
    try:
        for polygon in mask:  # without a call for each polygon: files have a million
            if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2 or not isfinite(sum(polygon)):
                return False
    except (OverflowError, TypeError):
        return False
    return type(mask) is list


def repair_polygons(mask: object) -> list | None:
    """Bring polygons into COCO's form, without parts that are a point or a line; None if they are something else."""
    try:
        polygons = [to_numbers(polygon) for polygon in _find_polygons(mask)]
    except ValueError:
        return None
    if any(polygon is None or len(polygon) % 2 for polygon in polygons):
        return None
    large = [polygon for polygon in polygons if len(polygon) >= 6]
    return large if large or not polygons else None


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


def mask_area(polygons: Sequence[Sequence[float]]) -> float:
    """Return the area of polygons in pixels; 0 for numbers beyond float."""
    try:
        area = sum(map(polygon_area, polygons))
        return area if math.isfinite(area) else 0.0
    except OverflowError:
        return 0.0


def rle_areas(masks: Sequence[Mapping]) -> list[int | None]:
    """Return the number of pixels of each RLE mask; None for one whose runs do not fill its size exactly.

    The C code of pycocotools does not check RLE, and reads and writes outside its arrays if it is invalid.
    """
    areas: list[int | None] = [None] * len(masks)
    coded: list[tuple[int, str, int]] = []
    for i, mask in enumerate(masks):
        size, counts = mask.get('size'), mask.get('counts')
        if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int and side > 0 for side in size):
            continue
        pixels = size[0] * size[1]
        if isinstance(counts, str) and counts and counts.isascii() and pixels < _MOST_PIXELS:
            coded.append((i, counts, pixels))
        elif isinstance(counts, list) and all(type(run) is int and run >= 0 for run in counts):
            areas[i] = sum(counts[1::2]) if sum(counts) == pixels else None
    for start in range(0, len(coded), _BATCH):
        positions, codes, pixels = zip(*coded[start : start + _BATCH], strict=True)
        for i, area in zip(positions, _areas_of_codes(codes, np.array(pixels)), strict=True):
            areas[i] = area
    return areas


def _areas_of_codes(codes: Sequence[str], pixels: np.ndarray) -> list[int | None]:
    """Decode compressed run lengths, of many masks at once.

    From the fourth on, a run length is stored as its difference to the one before the last, in groups of five bits,
    lowest first, each in a character from ``'0'``; bit 5 means that more follow, bit 4 of the last is the sign.
    """
    lengths = np.array([*map(len, codes)])
    heads = lengths.cumsum() - lengths
    bits = np.frombuffer(''.join(codes).encode(), np.uint8) - np.uint8(48)  # above 63 also below '0'
    last = bits & 0x20 == 0
    sound = last[heads + lengths - 1] & (np.maximum.reduceat(bits, heads) < 64)
    last[heads + lengths - 1] = True  # a damaged mask does not reach into the next one
    ends = np.flatnonzero(last)
    sizes = np.diff(ends, prepend=-1)
    runs = (bits[ends] & 0x1F).astype(np.int64) - (bits[ends] << 1 & 0x20)
    long = np.flatnonzero(sizes > 1)
    for i in range(1, _LONGEST_RUN):
        runs[long] = (runs[long] << 5) + (bits[ends[long] - i] & 0x1F)
        long = long[sizes[long] > i + 1]
    numbers = np.add.reduceat(last, heads, dtype=np.int64)
    first = numbers.cumsum() - numbers
    lone, runs[first] = runs[first], 0  # the first run length of a mask is not added to the third one
    for parity in (0, 1):
        chain = runs[parity::2]
        begins = (first + 1 - parity) // 2
        total = np.concatenate([[0], chain.cumsum()])
        chain[:] = total[1:] - np.repeat(total[begins], np.diff(begins, append=len(chain)))
    runs[first] = lone
    position = np.arange(len(runs)) - np.repeat(first, numbers)
    sound &= np.maximum.reduceat(sizes, first) <= _LONGEST_RUN
    sound &= (np.minimum.reduceat(runs, first) >= 0) & (np.maximum.reduceat(runs, first) <= pixels)
    sound &= np.add.reduceat(runs, first) == pixels
    areas = np.add.reduceat(runs * (position & 1), first)
    return [area if good else None for area, good in zip(areas.tolist(), sound.tolist(), strict=True)]
