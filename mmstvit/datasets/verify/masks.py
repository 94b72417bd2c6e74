"""Boxes and masks in COCO's format, looked at without trusting them."""

import math
from collections.abc import Iterator, Mapping
from numbers import Real

from pycocotools import mask as rle

# COCO's boxes and polygons are rounded: what leaves the image by no more than this is inside.
TOLERANCE = 1.0


def check_box(box: object, height: int, width: int) -> Iterator[tuple[str, str]]:
    """The faults of a box (x, y, width, height) in an image: kinds and messages."""
    if not (isinstance(box, (list, tuple)) and len(box) == 4 and all(map(_is_finite, box))):
        yield 'bad box', f'bbox is {box!r}, not four finite numbers'
        return
    x, y, w, h = box
    if w < 1 or h < 1:
        yield 'empty box', f'bbox {_numbers(box)} is less than a pixel wide or high; MMDetection drops it'
    elif x < -TOLERANCE or y < -TOLERANCE or x + w > width + TOLERANCE or y + h > height + TOLERANCE:
        yield 'box outside image', f'bbox {_numbers(box)} leaves the image of {width}×{height}'


def check_mask(mask: object, height: int, width: int) -> Iterator[tuple[str, str]]:
    """The faults of a mask, polygons or RLE: kinds and messages."""
    if isinstance(mask, list):
        yield from _check_polygons(mask, height, width)
    elif isinstance(mask, Mapping) and {'size', 'counts'} <= set(mask):
        yield from _check_rle(mask, height, width)
    else:
        yield 'bad mask', f'segmentation is {type(mask).__name__}, neither polygons nor RLE (size and counts)'


def _check_polygons(polygons: list, height: int, width: int) -> Iterator[tuple[str, str]]:
    for polygon in polygons:
        if not isinstance(polygon, (list, tuple)) or not all(map(_is_finite, polygon)):
            yield 'bad mask', 'a polygon is no list of finite numbers'
            return
        if len(polygon) < 6 or len(polygon) % 2:
            yield 'bad mask', f'a polygon has {len(polygon)} numbers; it needs pairs, three or more'
            return
    if not polygons:
        yield 'empty mask', 'segmentation has no polygon'
        return
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    if min(*xs, *ys) < -TOLERANCE or max(xs) > width + TOLERANCE or max(ys) > height + TOLERANCE:
        corners = _numbers([min(xs), min(ys), max(xs), max(ys)])
        yield 'mask outside image', f'its polygons span {corners} (x1, y1, x2, y2) in an image of {width}×{height}'
    elif rle.area(rle.merge(rle.frPyObjects(polygons, height, width))) == 0:
        yield 'empty mask', 'its polygons cover no pixel'


def _check_rle(mask: Mapping, height: int, width: int) -> Iterator[tuple[str, str]]:
    if list(mask['size']) != [height, width]:
        yield 'bad mask', f'RLE of size {list(mask["size"])} in an image of [{height}, {width}] (height, width)'
        return
    counts = mask['counts']
    if isinstance(counts, (str, bytes)):
        counts = decode_counts(counts.encode() if isinstance(counts, str) else counts)
    if not isinstance(counts, list) or not all(isinstance(count, int) and count >= 0 for count in counts):
        yield 'bad mask', 'the counts of the RLE are no run lengths'
    elif sum(counts) != height * width:
        yield 'bad mask', f'the counts of the RLE add up to {sum(counts)} pixels, the image has {height * width}'
    elif sum(counts[1::2]) == 0:
        yield 'empty mask', 'its RLE covers no pixel'


def decode_counts(code: bytes) -> list[int] | None:
    """Run lengths of COCO's compressed RLE; None if the code is none.

    pycocotools trusts the code: it is decoded here because its C code reads and writes wherever a bad one points.
    From the third on, a run length is stored as its difference to the last but one, in groups of five bits, lowest
    first, each in a character from ``'0'``; bit 5 says that more follow, bit 4 of the last is the sign.
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


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


def _numbers(values: list) -> str:
    return f'[{", ".join(f"{value:g}" for value in values)}]'
