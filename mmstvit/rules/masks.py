"""Check boxes and masks in COCO's format without trusting them."""

import math
from collections.abc import Iterator, Mapping
from numbers import Real

from mmstvit.datasets.coco import is_polygon

# COCO's boxes and polygons are rounded: by this many pixels they may extend beyond the image without a finding, …
TOLERANCE = 1.0
# … and by this many with a warning.
ROUNDING = 2.0


def check_box(box: object, height: int, width: int) -> Iterator[tuple[str, str]]:
    """Check a box [x, y, width, height] in an image; yields kinds and messages of findings."""
    if not isinstance(box, (list, tuple)) or len(box) != 4 or not all(map(_is_finite, box)):
        yield 'invalid box', f'bbox is {box!r}, expected four finite numbers'
    elif min(box[2:]) < 1:
        yield 'invalid box', f'bbox {_numbers(box)} is less than 1 pixel wide or high'
    elif (beyond := overhang(box[0], box[1], box[0] + box[2], box[1] + box[3], height, width)) > TOLERANCE:
        kind = 'box outside image' if beyond > ROUNDING else 'box slightly outside image'
        yield kind, f'bbox {_numbers(box)} extends beyond the {width}×{height} image'


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def overhang(left: float, top: float, right: float, bottom: float, height: int, width: int) -> float:
    """Return the number of pixels by which a rectangle extends beyond the image; 0 or less if it does not."""
    return max(-left, -top, right - width, bottom - height)


def check_mask(mask: object, height: int, width: int) -> Iterator[tuple[str, str]]:
    """Check a mask, polygons or RLE, in an image; yields kinds and messages of findings."""
    if isinstance(mask, list):
        yield from _check_polygons(mask, height, width)
    elif isinstance(mask, Mapping) and {'size', 'counts'} <= set(mask):
        yield from _check_rle(mask, height, width)
    else:
        yield 'invalid mask', f'segmentation is a {type(mask).__name__}, neither polygons nor RLE (size and counts)'


def extent(polygons: list) -> tuple[float, float, float, float]:
    """Return the bounding rectangle of polygons: left, top, right, bottom."""
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


def _check_polygons(polygons: list, height: int, width: int) -> Iterator[tuple[str, str]]:
    from pycocotools import mask as rle

    for polygon in polygons:
        if not isinstance(polygon, (list, tuple)) or not all(map(_is_finite, polygon)):
            yield 'invalid mask', 'a polygon is not a list of finite numbers'
            return
        if not is_polygon(polygon):
            yield 'invalid mask', f'a polygon has {len(polygon)} numbers, expected three or more pairs'
            return
    corners = extent(polygons)
    beyond = overhang(*corners, height, width)
    if beyond > TOLERANCE:
        kind = 'mask outside image' if beyond > ROUNDING else 'mask slightly outside image'
        yield kind, f'polygons {_numbers(corners)} (x1, y1, x2, y2) extend beyond the {width}×{height} image'
    elif rle.area(rle.merge(rle.frPyObjects(polygons, height, width))) == 0:
        yield 'empty mask', 'the polygons cover no pixel'


def _check_rle(mask: Mapping, height: int, width: int) -> Iterator[tuple[str, str]]:
    if list(mask['size']) != [height, width]:
        yield 'invalid mask', f'the RLE has size {list(mask["size"])}, the image [{height}, {width}] (height, width)'
        return
    counts = mask['counts']
    if isinstance(counts, (str, bytes)):
        counts = decode_counts(counts.encode() if isinstance(counts, str) else counts)
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        yield 'invalid mask', 'the counts of the RLE are not run lengths'
    elif sum(counts) != height * width:
        yield 'invalid mask', f'the counts of the RLE add up to {sum(counts)} pixels, the image has {height * width}'
    elif sum(counts[1::2]) == 0:
        yield 'empty mask', 'the RLE covers no pixel'


def decode_counts(code: bytes) -> list[int] | None:
    """Decode the run lengths of COCO's compressed RLE; None if the code is invalid.

    The C code of pycocotools does not check the code, and reads and writes outside its arrays for an invalid one.
    From the third on, a run length is stored as its difference to the one before the last, in groups of five bits,
    lowest first, each in a character from ``'0'``; bit 5 means that more follow, bit 4 of the last is the sign.
    """
    counts: list[int] = []
    value = shift = 0
    for byte in code:
        bits = byte - 48
        if not 0 <= bits < 64:
            return None
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return None if shift else counts


def _numbers(values: tuple | list) -> str:
    return f'[{", ".join(f"{value:g}" for value in values)}]'
