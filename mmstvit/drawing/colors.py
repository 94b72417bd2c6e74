"""Colors of classes and of text."""

import contextlib
import functools
from collections.abc import Sequence

import cv2
import numpy as np

Color = tuple[int, int, int]
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
# Okabe and Ito, "Color Universal Design" (2008).
OKABE_ITO: tuple[Color, ...] = (
    (0, 114, 178),  # blue
    (230, 159, 0),  # orange
    (0, 158, 115),  # bluish green
    (86, 180, 233),  # sky blue
    (204, 121, 167),  # reddish purple
    (213, 94, 0),  # vermilion
    (240, 228, 66),  # yellow
    BLACK,
)
# Linear RGB as readers without green cones see it: Machado, Oliveira and Fernandes (2009), severity 1.
_DEUTERANOPIA = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
)


def class_colors(classes: Sequence[str], palette: object = None) -> list[Color]:
    """Return the RGB color of each class: that of the palette, or one that differs from the others in lightness too.

    Without a palette, the first eight are those of :data:`OKABE_ITO`; a background is black, and no other class is.

    Args:
        classes: Names of the classes.
        palette: RGB colors, one for each class or more; anything else, such as ``'random'``, is ignored.
    """
    with contextlib.suppress(OverflowError, TypeError, ValueError):
        own = np.array(palette, np.uint8)
        if own.ndim == 2 and own.shape[0] >= len(classes) and own.shape[1] == 3:
            return [tuple(color) for color in own[: len(classes)].tolist()]
    colors = _palette()
    if any(map(is_background, classes)):
        colors = [color for color in colors if color != BLACK]
    others = iter(range(len(classes)))
    return [BLACK if is_background(name) else colors[next(others) % len(colors)] for name in classes]


def is_background(name: str) -> bool:
    """Return whether a class is what remains beside the objects; it is not painted."""
    return name.lower() == 'background'


def text_color(background: Color) -> Color:
    """Return black or white: the one with the higher contrast, as WCAG 2 defines it."""
    luminance = float(_to_linear(np.array(background)) @ (0.2126, 0.7152, 0.0722))
    return BLACK if (luminance + 0.05) ** 2 > 1.05 * 0.05 else WHITE


@functools.cache
def _palette() -> list[Color]:
    """Return the colors of Okabe and Ito, then hues in eight lightnesses, each as far as possible from all before it.

    The distance of two colors is the smaller one of two: with and without green cones.
    """
    lightness, hue = np.meshgrid(np.arange(25, 96, 10), np.arange(24) * np.pi / 12)
    lab = np.stack([lightness, 40 * np.cos(hue), 40 * np.sin(hue)], -1).astype(np.float32)
    colors = (cv2.cvtColor(lab, cv2.COLOR_LAB2RGB).reshape(-1, 3) * 255).round()  # clips what a screen cannot show
    colors = np.concatenate([OKABE_ITO, np.unique(colors, axis=0)])
    linear = _to_linear(colors)
    views = [_to_lab(linear), _to_lab(linear @ _DEUTERANOPIA.T)]
    chosen = list(range(len(OKABE_ITO)))
    nearest = np.min([_distances(views, index) for index in chosen], 0)
    while nearest.max() > 2:  # closer ones look alike
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, _distances(views, chosen[-1]))
    return [tuple(color) for color in colors[chosen].astype(int).tolist()]


def _distances(views: Sequence[np.ndarray], index: int) -> np.ndarray:
    """Return the distance of each color to one of them."""
    return np.min([np.linalg.norm(view - view[index], axis=-1) for view in views], 0)


def _to_linear(colors: np.ndarray) -> np.ndarray:
    values = colors / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def _to_lab(linear: np.ndarray) -> np.ndarray:
    """Convert linear RGB to CIE Lab; less weight on the hue, which Lab exaggerates between strong colors."""
    lab = cv2.cvtColor(linear.clip(0, 1).astype(np.float32)[None], cv2.COLOR_LRGB2LAB)[0]
    return lab * (1, 0.6, 0.6)
