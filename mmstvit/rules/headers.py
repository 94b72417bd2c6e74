"""Headers of a sample of the images of a dataset."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.dataset import BaseDataset
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


class CocoInfos(Sequence):
    """Samples of a COCO dataset without objects, made when they are asked for.

    Args:
        dataset: The dataset; its samples need not be loaded.
        images: Entries of the annotation file.
    """

    def __init__(self, dataset: BaseDataset, images: list[Mapping]) -> None:
        self.dataset = dataset
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Mapping:
        """Make a sample."""
        image = self.images[index]
        return self.dataset.parse_data_info(dict(raw_img_info={**image, 'img_id': image['id']}, raw_ann_info=[]))


def read_headers(infos: Sequence[Mapping]) -> list[Header]:
    """Read the headers of evenly spaced images; those that cannot be read are left out.

    Args:
        infos: Samples of a dataset before its pipeline.
    """
    chosen = np.unique(np.linspace(0, len(infos) - 1, min(SAMPLE, len(infos))).astype(int)).tolist() if infos else []
    headers = (_read_header(infos[index]) for index in chosen)
    return [header for header in headers if header is not None]


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
