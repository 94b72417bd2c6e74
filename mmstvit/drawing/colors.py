"""Colors of classes and of text."""

import contextlib
from collections.abc import Sequence

import numpy as np

Color = tuple[int, int, int]
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
# Eight colors of Okabe and Ito, "Color Universal Design" (2008): blue, orange, bluish green, sky blue, reddish purple,
# vermilion, yellow, black. Then hues in lightnesses of CIE Lab from 25 to 95, each as far as possible from all before
# it, as readers with and without green cones see them.
_HEX = (
    '0072b2 e69f00 009e73 56b4e9 cc79a7 d55e00 f0e442 000000 '
    '553400 b6ffc9 00494a ffbefb bfbc70 0f3a76 6d6e26 93548c 8c3444 fd9cba ffeea3 7baa6a 867bc0 00607f a77c40 843764 '
    '00482b ffbfa0 30ccca f6e7ff 005692 63510a 00b0c0 004866 a64d6c 7fc993 a6514b b49c55 eed288 d4a8ed 0095a5 ffd4de'
)
PALETTE: list[Color] = [tuple(color) for color in np.reshape(list(bytes.fromhex(_HEX)), (-1, 3)).tolist()]


def class_colors(classes: Sequence[str], palette: object = None) -> list[Color]:
    """Return the RGB color of each class: that of its palette, or one that differs from the others in lightness too.

    Without a palette of its own, a background is black, and then no other class is. Colors repeat after 40 classes.

    Args:
        classes: Names of the classes.
        palette: RGB colors, one for each class or more; anything else, such as ``'random'``, is ignored.
    """
    with contextlib.suppress(OverflowError, TypeError, ValueError):
        own = np.array(palette, np.uint8)
        if own.ndim == 2 and own.shape[0] >= len(classes) and own.shape[1] == 3:
            return [tuple(color) for color in own[: len(classes)].tolist()]
    colors = [color for color in PALETTE if color != BLACK or not any(map(is_background, classes))]
    others = iter(colors * (len(classes) // len(colors) + 1))
    return [BLACK if is_background(name) else next(others) for name in classes]


def is_background(name: str) -> bool:
    """Return whether a class is the background, which is not painted."""
    return name.lower() == 'background'


def text_color(background: Color) -> Color:
    """Return black or white: the one with the higher contrast, as WCAG 2 defines it."""
    values = np.array(background) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return BLACK if (linear @ (0.2126, 0.7152, 0.0722) + 0.05) ** 2 > 1.05 * 0.05 else WHITE
