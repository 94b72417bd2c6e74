"""Headers of a sample of the images of a dataset."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from mmstvit.datasets.images import Reader, UnreadableError
from mmstvit.fileio.files import open_file
from mmstvit.fileio.image_files import ImageError, open_image

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
        error: The reason why no pipeline takes the image: it has too many pixels.
    """

    info: Mapping
    path: str
    mode: str = '?'
    size: tuple[int, int] = (1, 1)
    bits: int = 8
    error: str = ''


def choose_spread(count: int, most: int = SAMPLE) -> list[int]:
    """Choose evenly spaced positions among ``count``, all of them if they are few."""
    return np.unique(np.linspace(0, count - 1, min(most, count)).astype(int)).tolist()


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
        try:
            if isinstance(path, str) and os.path.isfile(path) and (header := _read_header(path)):
                yield Header(info, path, *header)
        except ImageError as error:
            yield Header(info, path, error=str(error))


def _read_header(path: str) -> tuple[str, tuple[int, int], int] | None:
    try:
        with open_image(path) as image:
            bits = 16 if image.mode.startswith('I') else 8
            if image.format == 'TIFF':
                bits = max(image.tag_v2.get(258, (bits,)))
            elif image.format == 'PNG':
                with open_file(path) as file:
                    bits = file.read(_PNG_BITS + 1)[_PNG_BITS]
            return image.mode, image.size, bits
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError):
        pass
    try:  # TIFF files of several bands, which Pillow does not know
        array = Reader('img_path', 'unchanged', 'cv2').read(path)
    except UnreadableError:
        return None
    return '?', array.shape[1::-1], array.itemsize * 8
