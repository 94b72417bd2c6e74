"""Pictures of the page: the prediction of an image, and the maps of a block."""

from typing import NamedTuple

import cv2
import numpy as np
from mmengine.structures import BaseDataElement

from mmstvit.apis.drawing import Color, draw_instances, draw_map
from mmstvit.apis.predict.model import Predictor
from mmstvit.apis.predict.results import read_classes, read_map, read_objects
from mmstvit.visualization import Attention, SuperTokens, drawing

SCORE = 0.3  # lowest score of an object, as in predict.py
SIDE = 640  # longer side of a picture, in pixels


class ClassScore(NamedTuple):
    """Class with its score or its share of the pixels, as text too, and its color in the picture if it has one."""

    name: str
    value: float
    text: str
    color: Color | None = None


def fit(image: np.ndarray) -> np.ndarray:
    """Resize an image to a longer side of ``SIDE``."""
    scale = SIDE / max(image.shape[:2])
    size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)


def draw_prediction(
    predictor: Predictor, sample: BaseDataElement, image: np.ndarray
) -> tuple[np.ndarray, str, list[ClassScore]]:
    """Draw a prediction on its image.

    Returns:
        The picture, a heading, and objects, segments or classes, the best or largest first.
    """
    classes, colors, picture = predictor.classes, predictor.colors, fit(image)
    if 'pred_instances' in sample:
        found, masks = read_objects(sample, SCORE), None
        if found.masks is not None:
            masks = np.array([cv2.resize(m.astype(np.uint8), picture.shape[1::-1]) for m in found.masks], bool)
        boxes = found.boxes * (picture.shape[1] / image.shape[1])
        picture = draw_instances(picture, boxes, found.labels, masks, found.texts(classes), colors)
        best = sorted(zip(found.scores, found.labels, strict=True), reverse=True)
        lines = [ClassScore(classes[i], score, f'{score:.2f}', colors[i]) for score, i in best]
        return picture, f'Objects with a score of {SCORE} or more', lines
    if 'pred_sem_seg' in sample:
        labels = read_map(sample)
        fitted = cv2.resize(labels.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        shares = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)] / labels.size
        lines = [ClassScore(classes[i], float(shares[i]), f'{shares[i]:.1%}', colors[i]) for i in shares.nonzero()[0]]
        lines.sort(key=lambda line: -line.value)
        return draw_map(picture, fitted.astype(int), classes, colors), 'Segments, and their share', lines
    return picture, 'Classes', [ClassScore(name, s, f'{s:.2f}') for name, s in read_classes(sample, classes)]


def draw_maps(picture: np.ndarray, tokens: SuperTokens | None, attention: Attention) -> tuple[np.ndarray, np.ndarray]:
    """Draw the super tokens of a block, each in its mean color, and the attention of its point.

    Args:
        picture: The image as the model sees it, at any size.
        tokens: The super tokens; None for global attention, whose tokens are the super tokens.
        attention: The attention.
    """
    if tokens is None:
        labels = attention.enlarge(np.arange(attention.weights.size).reshape(attention.weights.shape))
    else:
        labels = drawing.regions(tokens, picture.shape[:2])
    means = drawing.draw_boundaries(drawing.fill_means(picture, labels), labels, width=1.5)
    return means, drawing.draw_attention(picture, attention)
