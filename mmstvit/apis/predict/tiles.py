"""Prediction of large images in overlapping tiles.

Where two tiles overlap, they see the same: detections of different tiles are one object if their boxes agree in the
region that both tiles have. This holds for a whole object and its part, and for two parts of an object that is larger
than the overlap; neighbors of one class stay apart, which they do not if boxes are compared as a whole.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from mmcv.transforms import Resize
from mmengine.config import ConfigDict
from mmengine.structures import BaseDataElement, InstanceData

from mmstvit.errors import UserError
from mmstvit.fileio import unwrap
from mmstvit.nodes import as_list

from .predictor import Picture, Predictor

# Least intersection over union, where both tiles are, of the boxes of one object.
_SAME = 0.4


@dataclass(frozen=True)
class PlacedMask:
    """A mask of a small part of an image; ``np.asarray`` gives that of the whole image.

    Args:
        part: (h, w) of bool.
        corner: Column and row of the part in the image.
        shape: (H, W) of the image.
    """

    part: np.ndarray
    corner: tuple[int, int]
    shape: tuple[int, int]

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        whole, (x, y) = np.zeros(self.shape, dtype or bool), self.corner
        whole[y : y + self.part.shape[0], x : x + self.part.shape[1]] = self.part
        return whole


class TiledDetector:
    """A detector that predicts images in tiles, in the place of its predictor.

    Args:
        predictor: The predictor.
        size: Side of a tile, in pixels of the image.
        overlap: Pixels that neighbors share.
        batch_size: Tiles that are predicted together.
    """

    def __init__(self, predictor: Predictor, size: int, overlap: int, batch_size: int) -> None:
        self._predictor, self._size, self._stride, self._batch_size = predictor, size, size - overlap, batch_size

    def prepare(self, picture: Picture) -> dict:
        """Return the picture; its tiles are prepared when they are predicted."""
        return dict(inputs=picture.image, picture=picture)

    def predict(self, batch: Sequence[dict]) -> list[BaseDataElement]:
        """Predict images."""
        return [self._predict(data['picture']) for data in batch]

    def _predict(self, picture: Picture) -> BaseDataElement:
        height, width = picture.image.shape[:2]
        tiles = [(x, y, x2, y2) for y, y2 in self._spans(height) for x, x2 in self._spans(width)]
        found, places = [], []
        for i in range(0, len(tiles), self._batch_size):
            batch = tiles[i : i + self._batch_size]
            parts = [replace(picture, image=picture.image[y:y2, x:x2]) for x, y, x2, y2 in batch]
            samples = self._predictor.predict([self._predictor.prepare(part) for part in parts])
            for tile, sample in zip(batch, samples, strict=True):
                found.append(_place(sample.pred_instances.cpu(), tile, (height, width)))
                places += [tile] * len(found[-1])
        everything = InstanceData.cat(found)
        sample = BaseDataElement()
        sample.pred_instances = merge_tiles(everything, np.array(places).reshape(-1, 4), (width, height), self._margin)
        return sample

    @property
    def _margin(self) -> float:
        """Largest distance of the box of a cut object from the border of its tile."""
        return max(2, self._size / 64)

    def _spans(self, length: int) -> Iterator[tuple[int, int]]:
        last = max(length - self._size, 0)
        for start in [*range(0, last, self._stride), last]:
            yield start, min(start + self._size, length)


def _place(found: InstanceData, tile: Sequence[int], shape: tuple[int, int]) -> InstanceData:
    """Return the objects of a tile in coordinates of the image."""
    boxes = getattr(found.bboxes, 'tensor', found.bboxes) + found.scores.new_tensor([*tile[:2], *tile[:2]])
    placed = InstanceData(bboxes=boxes, scores=found.scores, labels=found.labels)
    if 'masks' in found:
        placed.masks = [_crop(mask, tile, shape) for mask in np.asarray(found.masks, bool)]
    return placed


def _crop(mask: np.ndarray, tile: Sequence[int], shape: tuple[int, int]) -> PlacedMask:
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    y, x = (int(side[0]) if len(side) else 0 for side in (rows, columns))
    part = mask[y : y + np.ptp(rows) + 1, x : x + np.ptp(columns) + 1] if len(rows) else mask[:0, :0]
    return PlacedMask(part.copy(), (tile[0] + x, tile[1] + y), shape)


def merge_tiles(found: InstanceData, tiles: np.ndarray, size: tuple[int, int], margin: float) -> InstanceData:
    """Merge the objects that several tiles have found.

    Args:
        found: Objects of all tiles, in coordinates of the image.
        tiles: Tile of each object, (n, 4).
        size: Width and height of the image.
        margin: Pixels from the border of a tile within which a box is cut by it.

    Returns:
        One entry per object: the whole object with the best score if a tile has it, else its parts together.
    """
    boxes, scores, labels = (found[key].numpy() for key in ('bboxes', 'scores', 'labels'))
    limits = np.array([0, 0, *size])
    cut = ((abs(boxes - tiles) <= margin) & (tiles != limits)).any(1)
    left, merged = np.ones(len(boxes), bool), defaultdict(list)
    for first in np.lexsort((-scores, cut)):
        if not left[first]:
            continue
        group, left[first] = [first], False
        for i in group:
            same = np.flatnonzero(left & (labels == labels[first]) & (_agreement(i, boxes, tiles) > _SAME))
            left[same] = False
            group += same.tolist() if cut[first] else []
        merged['scores'].append(scores[first])
        merged['labels'].append(labels[first])
        merged['bboxes'].append([*boxes[group, :2].min(0), *boxes[group, 2:].max(0)])
        if 'masks' in found:
            merged['masks'].append(_unite([found.masks[i] for i in group]))
    data = {key: torch.tensor(np.array(merged[key], found[key].numpy().dtype)) for key in ('scores', 'labels')}
    data['bboxes'] = torch.tensor(np.array(merged['bboxes'], boxes.dtype).reshape(-1, 4))
    return InstanceData(**data, **({'masks': merged['masks']} if 'masks' in found else {}))


def _agreement(i: int, boxes: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Return the intersection over union of one box with all, where both tiles are; 0 for boxes of one tile."""
    low, high = np.maximum(tiles[i, :2], tiles[:, :2]), np.minimum(tiles[i, 2:], tiles[:, 2:])
    one, others = (np.clip(part, np.tile(low, 2), np.tile(high, 2)) for part in (boxes[i], boxes))
    both = [np.maximum(one[:, :2], others[:, :2]), np.minimum(one[:, 2:], others[:, 2:])]
    areas = [
        (corners[1] - corners[0]).clip(0).prod(1) for corners in (both, np.hsplit(one, [2]), np.hsplit(others, [2]))
    ]
    shared = (low < high).all(1) & (tiles != tiles[i]).any(1)
    return np.where(shared, areas[0] / np.maximum(areas[1] + areas[2] - areas[0], 1e-9), 0)


def _unite(masks: Sequence[PlacedMask]) -> PlacedMask:
    low = np.min([mask.corner for mask in masks], 0)
    high = np.max([np.add(mask.corner, mask.part.shape[::-1]) for mask in masks], 0)
    part = np.zeros((high - low)[::-1], bool)
    for mask in masks:
        (x, y), (height, width) = mask.corner - low, mask.part.shape
        part[y : y + height, x : x + width] |= mask.part
    return PlacedMask(part, (int(low[0]), int(low[1])), masks[0].shape)


class TiledSegmentor:
    """A segmentor in MMSegmentation's slide mode, in the place of its predictor.

    A tile is resized as the test pipeline resizes an image of its size: so is the whole image, by the same factor.

    Args:
        predictor: The predictor.
        size: Side of a tile, in pixels of the image.
        overlap: Pixels that neighbors share.
    """

    def __init__(self, predictor: Predictor, size: int, overlap: int) -> None:
        self._predictor, self._size, self._overlap, self._ready = predictor, size, overlap, False
        self._model = unwrap(predictor.model)
        if not hasattr(self._model, 'slide_inference'):
            raise UserError(
                f'--tile needs a segmentor with a slide mode, but {type(self._model).__name__} has none.',
                'Predict with the checkpoint, without --tta.',
            )

    def prepare(self, picture: Picture) -> dict:
        """Run the pipeline on an image."""
        if not self._ready:
            self._set_up(picture)
            self._ready = True
        return self._predictor.prepare(picture)

    def predict(self, batch: Sequence[dict]) -> list[BaseDataElement]:
        """Predict a batch of prepared images."""
        return self._predictor.predict(batch)

    def _set_up(self, picture: Picture) -> None:
        crop = self._prepared(picture, self._size)
        for step in self._predictor.pipeline.transforms:
            if isinstance(step, Resize):
                step.scale, step.scale_factor = None, tuple(side / self._size for side in reversed(crop))
        if self._prepared(picture, 2 * self._size) != [2 * side for side in crop]:
            raise UserError('--tile needs a test pipeline in which Resize alone changes the size of an image.')
        stride = [side - round(self._overlap * side / self._size) for side in crop]
        self._model.test_cfg = ConfigDict(self._model.test_cfg, mode='slide', crop_size=crop, stride=stride)

    def _prepared(self, picture: Picture, side: int) -> list[int]:
        image = np.zeros((side, side, *picture.image.shape[2:]), picture.image.dtype)
        return [*as_list(self._predictor.prepare(replace(picture, image=image))['inputs'])[0].shape[1:]]
