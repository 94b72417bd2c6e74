"""Pictures of the page: the prediction of an image, and the maps of a block."""

from collections.abc import Sequence

import numpy as np
from mmengine.structures import BaseDataElement

from mmstvit.drawing import (
    Color,
    draw_boundaries,
    draw_map,
    draw_objects,
    fill_means,
    read_classes,
    read_map,
    read_objects,
    resize,
)
from mmstvit.visualization import Attention, SuperTokens, token_maps

SIDES = 800, 1600  # shortest and longest longer side of a picture, in pixels


def legible(image: np.ndarray, longest: int = SIDES[1]) -> np.ndarray:
    """Resize an image to a size in which text is legible."""
    return resize(image, min(max(*image.shape[:2], SIDES[0]), longest))


def draw_prediction(
    classes: Sequence[str], colors: Sequence[Color], sample: BaseDataElement, image: np.ndarray, score: float
) -> tuple[np.ndarray, str, list[dict]]:
    """Draw a prediction on its image, of a detector the objects with at least a score.

    Returns:
        The picture, a heading, and objects, segments or classes, the best or largest first: ``name``, ``value`` (the
        score, or the share of the pixels), ``text`` and ``color`` (None for classes).
    """
    picture = legible(image)
    if 'pred_instances' in sample:
        found = read_objects(sample.pred_instances, score)
        drawn = draw_objects(picture, found, classes, colors, scale=picture.shape[1] / image.shape[1])
        best = sorted(zip(found.scores, found.labels, strict=True), reverse=True)
        rows = [dict(name=classes[i], value=value, text=f'{value:.2f}', color=colors[i]) for value, i in best]
        return drawn, f'Objects with a score of {score:.2f} or more', rows
    if 'pred_sem_seg' in sample:
        labels = read_map(sample.pred_sem_seg)
        shares = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)] / labels.size
        largest = [i for i in np.argsort(-shares, kind='stable') if shares[i]]
        rows = [
            dict(name=classes[i], value=float(shares[i]), text=f'{shares[i]:.1%}', color=colors[i]) for i in largest
        ]
        return draw_map(picture, labels, classes, colors), 'Segments, and their share', rows
    best = read_classes(sample, classes)
    return picture, 'Classes', [dict(name=name, value=s, text=f'{s:.2f}', color=None) for name, s in best]


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
        labels = token_maps.regions(tokens, picture.shape[:2])
    return draw_boundaries(fill_means(picture, labels), labels), token_maps.draw_attention(picture, attention)
