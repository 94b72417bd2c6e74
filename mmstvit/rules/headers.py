"""Headers of a sample of the images of a dataset."""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from mmstvit.datasets.images import Reader, UnreadableError
from mmstvit.fileio.files import open_file
from mmstvit.fileio.image_files import ImageError, has_pages, open_image

SAMPLE = 64  # images of a dataset whose headers are read, evenly spaced
_PNG_BITS = 24  # offset of the bit depth
T = TypeVar('T')


@dataclass(frozen=True)
class Header:
    """Header of an image file.

    Args:
        info: Its sample before the pipeline.
        path: Path of the file.
        mode: Pillow's mode, such as ``'RGB'``; ``'?'`` if Pillow does not know the format.
        size: (width, height).
        bits: Bits per channel.
        has_pages: The file has several images of this size.
        error: The reason why no pipeline takes the image: it has too many pixels.
    """

    info: Mapping
    path: str
    mode: str = '?'
    size: tuple[int, int] = (1, 1)
    bits: int = 8
    has_pages: bool = False
    error: str = ''


def thin_out(items: Sequence[T], most: int) -> Sequence[T]:
    """Return every second, third, … item, so that there are ``most`` at most; all of them if they are few."""
    return items[:: -(-len(items) // most) or 1]


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
        if not isinstance(path, str) or not os.path.isfile(path):
            continue
        try:
            with open_image(path) as image:
                yield Header(info, path, image.mode, image.size, _bits(path, image), has_pages(path))
        except ImageError as error:
            yield Header(info, path, error=str(error))
        except (OSError, SyntaxError, ValueError):
            with contextlib.suppress(UnreadableError):  # TIFF files of several bands, which Pillow does not know
                array = Reader('img_path', 'unchanged', 'cv2').read(path)
                yield Header(info, path, size=array.shape[1::-1], bits=array.itemsize * 8)


def _bits(path: str, image: Image.Image) -> int:
    if image.format == 'PNG':  # Pillow's mode has 8 bits for colors of 16
        with open_file(path) as file:
            return file.read(_PNG_BITS + 1)[_PNG_BITS]
    bits = 16 if image.mode.startswith('I') else 8
    return max(image.tag_v2.get(258, (bits,))) if image.format == 'TIFF' else bits
