"""Headers of a sample of the images of a dataset."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmstvit.datasets.images import Reader, UnreadableError

SAMPLE = 64  # images of a dataset whose headers are read, evenly spaced
_PNG_BITS = 24  # offset of the bit depth


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    Args:
        info: Its sample before the pipeline.
        path: Path of the file.
        mode: Pillow's mode, such as ``'RGB'``; ``'?'`` if Pillow does not know the format.
        size: (width, height).
        bits: Bits per channel.
    """

    info: Mapping
    path: str
    mode: str
    size: tuple[int, int]
    bits: int


def choose_spread(values: Sequence, most: int = SAMPLE) -> list:
    """Choose evenly spaced values, all of them if they are few."""
    positions = np.linspace(0, len(values) - 1, min(most, len(values))).astype(int)
    return [values[position] for position in np.unique(positions).tolist()]


def read_headers(infos: Sequence[Mapping]) -> list[Header]:
    """Read the headers of images; those that cannot be read are left out.

    Args:
        infos: Samples of a dataset before its pipeline.
    """
    return [header for header in map(_read_header, infos) if header is not None]


def _read_header(info: Mapping) -> Header | None:
    path = info.get('img_path')
    if not isinstance(path, str) or not os.path.isfile(path):
        return None
    try:
        with Image.open(path) as image:
            bits = 16 if image.mode.startswith('I') else 8
            if image.format == 'TIFF':
                bits = max(image.tag_v2.get(258, (bits,)))
            elif image.format == 'PNG':
                with open(path, 'rb') as file:
                    bits = file.read(_PNG_BITS + 1)[_PNG_BITS]
            return Header(info, path, image.mode, image.size, bits)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        pass
    try:  # TIFF files of several bands, which Pillow does not know
        array = Reader('img_path', 'unchanged', 'cv2').read(path)
    except UnreadableError:
        return None
    return Header(info, path, '?', array.shape[1::-1], array.itemsize * 8)
