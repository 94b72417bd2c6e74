"""Differences between files of label maps and of images: their names and what they look like."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmstvit.fileio import open_image

_PIXELS = 512  # side of the part of a file that is looked at
_PHOTO = 4096  # colors that a JPEG file of a label map does not have
_MARK = re.compile('[-._ ]')
_FEW, MANY_VALUES = 40, 300  # values of a label map, with and without soft borders


def cuts(name: str) -> Iterator[tuple[str, str]]:
    """Cut a name before each mark between its words."""
    yield from ((name[:i], name[i:]) for i in map(re.Match.start, _MARK.finditer(name, 1)))


@dataclass(frozen=True)
class Look:
    """Look of a file.

    Args:
        size: Width and height.
        values: Number of its values or colors.
        is_map: It has few values in flat regions.
        colored: It has three channels that differ.
        cut_out: A part of it is transparent.
    """

    size: tuple[int, int]
    values: int
    is_map: bool
    colored: bool
    cut_out: bool


@functools.lru_cache(maxsize=10_000)
def look_at(path: Path) -> Look | None:
    """Look at the middle of a file; None if it cannot be decoded."""
    try:
        with open_image(path) as image:
            size, lossy = image.size, image.format in ('JPEG', 'MPO', 'WEBP')
            left, top = (max(0, (side - _PIXELS) // 2) for side in size)
            part = image.crop((left, top, min(size[0], left + _PIXELS), min(size[1], top + _PIXELS)))
            alpha = part.getchannel('A').getextrema() if 'A' in part.getbands() else (255, 255)
            if part.mode in ('LA', 'PA', 'RGBA', 'CMYK', 'YCbCr', 'HSV', 'LAB'):
                part = part.convert('RGB')
            array = np.asarray(part)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    colored = array.ndim == 3 and bool((array[..., :1] != array).any())
    if array.ndim == 3:
        array = array[..., :3].astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    array = array.astype(np.int64)
    values = len(np.unique(array))
    rough = array
    if lossy:  # values near each other are one
        shifts = (array >> 16 & 255, array >> 8 & 255, array & 255)
        rough = sum((part >> 6) << 8 * i for i, part in enumerate(shifts))
    count = len(np.unique(rough))
    flat = float((rough[:, 1:] == rough[:, :-1]).mean()) if rough.shape[1] > 1 else 0.0
    if lossy and values > min(_PHOTO, array.size / 4):
        flat = 0.0
    is_map = (count <= _FEW and flat >= 0.6) or (count <= MANY_VALUES and flat >= 0.85)
    return Look(size, values, is_map, colored, alpha[0] < alpha[1])
