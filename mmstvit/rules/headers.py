"""Headers of a sample of the images of a dataset."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def choose_spread(count: int, most: int = SAMPLE) -> list[int]:
    """Choose evenly spaced positions among ``count``, all of them if they are few."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


def choose_unusual(sizes: Sequence[tuple[float, float]]) -> list[int]:
    """Choose the positions of the narrowest and of the largest image, by their (width, height)."""
    if not len(sizes):
        return []
    width, height = np.asarray(sizes, float).T
    return [int(np.argmax(np.maximum(width / height, height / width))), int(np.argmax(width * height))]


def read_headers(infos: Iterable[Mapping]) -> Iterator[Header]:
    """Read the headers of images, by their samples before the pipeline; those that cannot be read are left out."""
    for info in infos:
        path = info.get('img_path')
        if isinstance(path, str) and os.path.isfile(path) and (header := _read_header(path)):
            yield Header(info, path, *header)


def _read_header(path: str) -> tuple[str, tuple[int, int], int] | None:
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # a header of any size may be read
    try:
        with Image.open(path) as image:
            bits = 16 if image.mode.startswith('I') else 8
            if image.format == 'TIFF':
                bits = max(image.tag_v2.get(258, (bits,)))
            elif image.format == 'PNG':
                with open(path, 'rb') as file:
                    bits = file.read(_PNG_BITS + 1)[_PNG_BITS]
            return image.mode, image.size, bits
    except (OSError, SyntaxError, ValueError):
        pass
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    try:  # TIFF files of several bands, which Pillow does not know
        array = Reader('img_path', 'unchanged', 'cv2').read(path)
    except UnreadableError:
        return None
    return '?', array.shape[1::-1], array.itemsize * 8
