"""Draw predictions on images: half transparent masks in one color per class, boxes, names and scores.

Images are RGB, (H, W, 3) of uint8; (n) objects.
"""

import contextlib
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmstvit.visualization.drawing import Color
from mmstvit.visualization.figures import load_font


def class_colors(count: int, palette: object = None) -> list[Color]:
    """Return an RGB color for every class: that of the palette, else hues that differ between neighbors."""
    with contextlib.suppress(OverflowError, TypeError, ValueError):  # a palette may be anything, such as 'random'
        own = np.array(palette, np.uint8)
        if own.ndim == 2 and own.shape[0] >= count and own.shape[1] == 3:
            return [tuple(color) for color in own[:count].tolist()]
    hues = [int(180 * (0.618034 * i % 1)) for i in range(count)]
    colors = cv2.cvtColor(np.array([[(hue, 220, 220) for hue in hues]], np.uint8).reshape(1, -1, 3), cv2.COLOR_HSV2RGB)
    return [tuple(map(int, color)) for color in colors[0]]


def draw_instances(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[int],
    masks: np.ndarray | None,
    texts: Sequence[str],
    colors: Sequence[Color],
) -> np.ndarray:
    """Draw objects on a copy of an image, the largest first.

    Args:
        image: The image.
        boxes: (n, 4), corners in pixels.
        labels: Class of each object.
        masks: (n, H, W); None for boxes only.
        texts: Text at each object.
        colors: Color of each class.
    """
    image = image.copy()
    boxes = boxes.round().astype(int)
    order = np.argsort(-(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), kind='stable')
    width = max(1, min(image.shape[:2]) // 300)
    for i in order if masks is not None else ():
        mask, color = masks[i].astype(np.uint8), colors[labels[i]]
        blend(image, mask > 0, color)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, contours, -1, color, width, cv2.LINE_AA)
    for i in order:
        cv2.rectangle(image, boxes[i, :2].tolist(), boxes[i, 2:].tolist(), colors[labels[i]], width)
    corners = [tuple(boxes[i, :2].tolist()) for i in order]
    return draw_texts(image, [texts[i] for i in order], corners, [colors[labels[i]] for i in order])


def draw_map(image: np.ndarray, labels: np.ndarray, names: Sequence[str], colors: Sequence[Color]) -> np.ndarray:
    """Draw a map of classes (H, W) on a copy of an image, with the name of each class in its largest region."""
    image = image.copy()
    present = [i for i in np.unique(labels).tolist() if i < len(colors)]  # 255: no class
    corners = []
    for i in present:
        mask = labels == i
        blend(image, mask, colors[i])
        _, regions, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        largest = (regions == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
        depth = cv2.distanceTransform(np.pad(largest, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        corners.append((int(x), int(y)))
    return draw_texts(image, [names[i] for i in present], corners, [colors[i] for i in present])


def draw_classes(image: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    """Write one line per class in the upper left corner of a copy of an image."""
    line = _font(image.shape).size + 5
    corners = [(0, (i + 1) * line) for i in range(len(texts))]
    return draw_texts(image, texts, corners, [(40, 40, 40)] * len(texts))


def blend(image: np.ndarray, mask: np.ndarray, color: Color) -> None:
    """Paint a half transparent mask (H, W) of bool on an image."""
    image[mask] = (0.5 * image[mask] + 0.5 * np.array(color)).astype(np.uint8)


def draw_texts(
    image: np.ndarray, texts: Sequence[str], corners: Sequence[tuple[int, int]], colors: Sequence[Color]
) -> np.ndarray:
    """Write texts on colored boxes whose lower left corners are given; boxes are moved into the image."""
    picture = Image.fromarray(image)
    draw, font = ImageDraw.Draw(picture), _font(image.shape)
    for text, (x, y), color in zip(texts, corners, colors, strict=True):
        width, height = int(draw.textlength(text, font)) + 3, font.size + 4
        x, y = max(0, min(x, picture.width - width)), max(y, height)
        draw.rectangle((x, y - height, x + width, y), fill=color)
        dark = 0.3 * color[0] + 0.6 * color[1] + 0.1 * color[2] > 150  # brightness of the color
        draw.text((x + 2, y - height + 1), text, (0, 0, 0) if dark else (255, 255, 255), font)
    return np.array(picture)


def _font(shape: tuple[int, ...]) -> ImageFont.FreeTypeFont:
    return load_font(min(max(min(shape[:2]) // 40, 11), 60))
