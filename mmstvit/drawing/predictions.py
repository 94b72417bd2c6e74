"""Predictions and ground truth of the three libraries: read from data samples, and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from .colors import Color
from .placement import draw_labels, font_size, label_size, place_labels
from .shapes import draw_boundaries, draw_boxes, draw_map, draw_masks

TOP = 5  # classes of an image that are listed
_LIST_COLOR = (40, 40, 40)
_INSTANCE_OFFSET = 1000  # of MMDetection's panoptic maps: class + 1000 × object


@dataclass
class Objects:
    """Objects in an image.

    Args:
        boxes: (n, 4), corners in pixels.
        labels: Class of each object.
        scores: Score of each object; None for ground truth.
        masks: (n, H, W) of bool, or a list of what ``np.asarray`` makes (H, W) of; None for boxes only.
    """

    boxes: np.ndarray
    labels: list[int]
    scores: list[float] | None
    masks: np.ndarray | list | None


def read_objects(instances: InstanceData, score: float = 0.0) -> Objects:
    """Return the objects of a prediction that have at least this score, or all of the ground truth."""
    if 'scores' in instances:
        instances = instances[instances.scores >= score].cpu()
    boxes = np.asarray(getattr(instances.bboxes, 'tensor', instances.bboxes), np.float64).reshape(-1, 4)
    masks = instances.get('masks')
    if masks is not None and not isinstance(masks, list):
        masks = np.asarray(masks.to_ndarray() if hasattr(masks, 'to_ndarray') else masks, bool)
    scores = instances.scores.tolist() if 'scores' in instances else None
    return Objects(boxes, instances.labels.tolist(), scores, masks)


def read_map(data: PixelData) -> np.ndarray:
    """Return the class of each pixel, (H, W): MMSegmentation has ``data``, MMDetection ``sem_seg``."""
    return (data.data if 'data' in data else data.sem_seg).squeeze(0).cpu().numpy()


def read_classes(sample: BaseDataElement, classes: Sequence[str]) -> list[tuple[str, float]]:
    """Return the best classes of a prediction with their scores, the best first."""
    scores, labels = sample.pred_score.topk(min(TOP, len(classes)))
    return [(classes[i], score) for score, i in zip(scores.tolist(), labels.tolist(), strict=True)]


def draw_objects(
    image: np.ndarray, objects: Objects, classes: Sequence[str], colors: Sequence[Color], scale: float = 1.0
) -> np.ndarray:
    """Draw masks, boxes, and names with scores; small objects are on top of large ones.

    Args:
        image: The image, RGB.
        objects: The objects.
        classes: Names of the classes.
        colors: Color of each class.
        scale: Pixels of the image per pixel of the boxes.
    """
    boxes, paint = objects.boxes * scale, [colors[i] for i in objects.labels]
    texts = [[classes[i]] for i in objects.labels]
    for text, score in zip(texts, objects.scores or [], strict=False):
        text.insert(0, f'{text[0]} {score:.2f}')
    order = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind='stable')
    colored = [paint[i] for i in order]
    if objects.masks is not None:
        image = draw_masks(image, [objects.masks[i] for i in order], colored)
    image = draw_boxes(image, boxes[order], colored)
    return draw_labels(image, boxes, texts, paint, objects.scores)


def draw_classes(image: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Write one line per class in the upper left corner."""
    height = label_size('', font_size(image.shape))[1]
    return place_labels(image, [(text, _LIST_COLOR, [(0, i * height)]) for i, text in enumerate(texts)])


def draw_sample(
    image: np.ndarray,
    sample: BaseDataElement,
    classes: Sequence[str],
    colors: Sequence[Color],
    kind: str = 'pred',
    score: float = 0.0,
    scale: float = 1.0,
) -> np.ndarray | None:
    """Draw what a data sample holds: objects, a map of classes or objects, or the classes of the image.

    Args:
        image: The image, RGB.
        sample: Data sample of MMDetection, MMSegmentation or MMPreTrain.
        classes: Names of the classes.
        colors: Color of each class.
        kind: ``'pred'`` draws the prediction, ``'gt'`` the ground truth.
        score: Lowest score of objects and classes.
        scale: Pixels of the image per pixel of the sample.

    Returns:
        The picture; None if the sample has nothing of this kind.
    """
    if f'{kind}_panoptic_seg' in sample:
        objects = read_map(sample.get(f'{kind}_panoptic_seg'))
        return draw_boundaries(draw_map(image, objects % _INSTANCE_OFFSET, classes, colors), objects)
    instances = sample.get(f'{kind}_instances', ())
    if 'bboxes' in instances:  # the truth has none if the pipeline loads no annotations
        return draw_objects(image, read_objects(instances, score), classes, colors, scale)
    if f'{kind}_sem_seg' in sample:
        return draw_map(image, read_map(sample.get(f'{kind}_sem_seg')), classes, colors)
    if f'{kind}_score' in sample:
        best = [f'{name} {value:.2f}' for name, value in read_classes(sample, classes) if value >= score]
        return draw_classes(image, best)
    if f'{kind}_label' in sample:
        return draw_classes(image, [classes[i] for i in sample.get(f'{kind}_label').reshape(-1).tolist()])
    return None
