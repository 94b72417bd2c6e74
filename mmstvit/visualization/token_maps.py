"""Draw the super tokens and the attention of one block on an image.

Images are RGB, (H, W, 3) of uint8, as the model sees them: after the test pipeline. They may be resized for display:
maps are fitted to their size.

Maps have one value per token, of ``stride`` pixels. For drawing only, they are interpolated bilinearly between the
centers of tokens. ``SuperTokens.label_map`` and ``Attention.map`` are not.
"""

import cv2
import numpy as np

from mmstvit.drawing import draw_heat, to_rgb
from mmstvit.nodes import as_list

from .records import Attention, Record, SuperTokens

# Shares of the values of a heat map that lie below its darkest and above its brightest color.
CLIPPED = 0.01


def image_of(sample: dict) -> np.ndarray:
    """Return the image in a sample of the test pipeline, RGB, as the model sees it."""
    return to_rgb(as_list(sample['inputs'])[0].permute(1, 2, 0).cpu().numpy())


def regions(tokens: SuperTokens, shape: tuple[int, int]) -> np.ndarray:
    """Return the super token to which each pixel of a picture belongs most, finer than the picture.

    Args:
        tokens: The super tokens.
        shape: Height and width of the picture.

    Returns:
        (H', W') of integers, with at least three samples per pixel and direction, for antialiased edges.
    """
    rows, columns, _ = tokens.association.shape
    n = _samples(tokens, shape)
    best, labels = np.zeros((rows * n, columns * n), np.float32), np.zeros((rows * n, columns * n), np.int32)
    s = tokens.stoken_size
    for index in range(tokens.grid[0] * tokens.grid[1]):
        # The 3×3 cells around, and a token more on each side, where the weight is 0.
        starts = [s * (cell - 1) - 1 for cell in divmod(index, tokens.grid[1])]
        part = tuple(slice(max(start, 0), start + 3 * s + 2) for start in starts)
        weights = (tokens.association[part] * (tokens.neighbors[part] == index)).sum(-1, dtype=np.float32)
        if weights.size == 0:  # a cell of padding
            continue
        weights = cv2.resize(weights, None, fx=n, fy=n)
        top, left = (axis.start * n for axis in part)
        window = np.s_[top : top + weights.shape[0], left : left + weights.shape[1]]
        more = weights > best[window]
        best[window][more], labels[window][more] = weights[more], index
    return _crop(labels, tokens, n)


def cells(tokens: SuperTokens, shape: tuple[int, int]) -> np.ndarray:
    """Return the cell of the initial grid to which each pixel of a picture belongs; see :func:`regions`."""
    n = _samples(tokens, shape)
    labels = np.arange(tokens.grid[0] * tokens.grid[1], dtype=np.int32).reshape(tokens.grid)
    labels = labels.repeat(tokens.stoken_size * n, 0).repeat(tokens.stoken_size * n, 1)
    return _crop(labels, tokens, n)


def heat_range(values: np.ndarray) -> tuple[float, float]:
    """Return the range of a heat map, robust against outliers: without the lowest and the highest 1 % of the values."""
    low, high = np.quantile(values, (CLIPPED, 1 - CLIPPED))
    return float(low), float(high)


def draw_weights(
    image: np.ndarray, record: Record, values: np.ndarray, limits: tuple[float, float], colormap: str = 'inferno'
) -> np.ndarray:
    """Draw values of tokens, (⌈H/t⌉, ⌈W/t⌉), as a heat map; see :func:`mmstvit.drawing.draw_heat`."""
    n = _samples(record, image.shape[:2], 1)
    return draw_heat(image, _crop(cv2.resize(values.astype(np.float32), None, fx=n, fy=n), record, n), limits, colormap)


def draw_attention(image: np.ndarray, attention: Attention) -> np.ndarray:
    """Draw the attention of a token, in the range of :func:`heat_range`, and a ring at the token."""
    weights = attention.weights if attention.weights.ndim == 2 else attention.weights.mean(0)
    picture = draw_weights(image, attention, weights, heat_range(weights))
    scale, stride = image.shape[0] / attention.size[0], attention.stride
    # The center of that part of the token that is in the image.
    y, x = (
        (index * stride + min((index + 1) * stride, side)) / 2 * scale
        for index, side in zip(attention.token, attention.size, strict=True)
    )
    center, radius = (round(x * 16), round(y * 16)), max(image.shape[:2]) / 80 + 2
    for color, thickness in (((0, 0, 0), 4), ((255, 255, 255), 2)):
        cv2.circle(picture, center, round(radius * 16), color, thickness, cv2.LINE_AA, shift=4)
    return picture


def draw_membership(image: np.ndarray, tokens: SuperTokens, index: int) -> np.ndarray:
    """Draw the membership of a super token as a heat map from 0 to its maximum.

    Raises:
        IndexError: There are not that many super tokens.
    """
    values = tokens.token_membership(index)
    return draw_weights(image, tokens, values, (0, values.max()), 'viridis')


def _samples(record: Record, shape: tuple[int, int], per_pixel: int = 3) -> int:
    """Return the samples per token that give so many per pixel of a picture; odd, to have one at the token's center."""
    pixels = max(record.stride * side / size for side, size in zip(shape, record.size, strict=True))
    return int(np.ceil(per_pixel * pixels)) // 2 * 2 + 1


def _crop(raster: np.ndarray, record: Record, samples: int) -> np.ndarray:
    """Cut off the part of the last tokens that is outside the image."""
    height, width = (round(side * samples / record.stride) for side in record.size)
    return raster[:height, :width]
