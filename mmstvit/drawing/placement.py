"""Labels on a picture, none of which hides another one."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

from .colors import Color, text_color
from .fonts import text_height, text_width, write_text

PADDING = 3  # pixels between a text and the border of its label
Corner = tuple[int, int]


def draw_labels(
    image: np.ndarray,
    boxes: np.ndarray,
    texts: Sequence[Sequence[str]],
    colors: Sequence[Color],
    scores: Sequence[float] | None = None,
) -> np.ndarray:
    """Write a label at each box, above, inside, below or beside it, where no other label is.

    Labels of high scores have the first choice. A label that fits nowhere is left out, and one that is wider than its
    box.

    Args:
        image: The image.
        boxes: (n, 4), corners in pixels.
        texts: Texts of each box, in order of preference: the first one that is not wider than the box is written.
        colors: Color of each box.
        scores: Score of each box; by default the first boxes choose first.
    """
    size = font_size(image.shape)
    labels = []
    for i in range(len(boxes)) if scores is None else np.argsort(-np.asarray(scores), kind='stable'):
        left, top, right, bottom = boxes[i].clip(0, np.tile(image.shape[1::-1], 2)).round().astype(int).tolist()
        for text in texts[i]:
            width, height = label_size(text, size)
            if width <= right - left:
                rows = (top - height, top, bottom, bottom - height)
                corners = [(x, y) for y in rows for x in (left, right - width)]
                labels.append((text, colors[i], [*corners, (right, top), (left - width, top)]))
                break
    return place_labels(image, labels)


def place_labels(image: np.ndarray, labels: Iterable[tuple[str, Color, Sequence[Corner]]]) -> np.ndarray:
    """Write texts on rectangles of their colors, each at the first of its upper left corners that is free.

    Labels that are not free at any of them are left out.
    """
    picture, size = Image.fromarray(image), font_size(image.shape)
    draw, taken = ImageDraw.Draw(picture), np.zeros((0, 4), int)
    for text, color, corners in labels:
        width, height = label_size(text, size)
        for x, y in corners:
            box = np.array([x, y, x + width, y + height])
            # A label that is larger than the image is cut off.
            inside = x >= 0 and y >= 0 and box[2] <= max(picture.width, width) and box[3] <= max(picture.height, height)
            if inside and not ((taken[:, :2] < box[2:]) & (taken[:, 2:] > box[:2])).all(1).any():
                taken = np.concatenate([taken, box[None]])
                draw.rectangle((x, y, x + width - 1, y + height - 1), fill=color)
                write_text(picture, (x + PADDING, y), text, size, text_color(color))
                break
    return np.array(picture)


def label_size(text: str, size: int) -> tuple[int, int]:
    """Return width and height of a label in pixels."""
    return text_width(text, size) + 2 * PADDING, text_height(size)


def font_size(shape: tuple[int, ...]) -> int:
    """Return the height of the font on an image of this shape, in pixels."""
    return min(max(min(shape[:2]) // 40, 11), 60)
