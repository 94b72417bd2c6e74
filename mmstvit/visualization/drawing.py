"""Draw super tokens and attention on images.

Images are RGB, (H, W, 3) of uint8, as the model sees them: after the test pipeline. They may be resized for display:
maps are fitted to their size.

Maps have one value per token, of ``stride`` pixels. For drawing only, they are interpolated bilinearly between the
centers of tokens. ``SuperTokens.label_map`` and ``Attention.map`` are not.
"""

import cv2
import matplotlib
import numpy as np
from torch import Tensor

from mmstvit.nodes import as_list

from .records import Attention, Record, SuperTokens

Color = tuple[int, int, int]
WHITE: Color = (255, 255, 255)
# Shares of the values of a heat map that lie below its darkest and above its brightest color.
CLIPPED = 0.01


def to_rgb(image: np.ndarray) -> np.ndarray:
    """Convert a decoded image for display.

    Args:
        image: (H, W) or (H, W, C), with blue, green and red first; values other than uint8 are stretched to its range.
    """
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / max(high - low, 1e-12))).astype(np.uint8)
    image = image.reshape(*image.shape[:2], -1)
    channels = (2, 1, 0) if image.shape[2] > 2 else (0, 0, 0)
    return np.ascontiguousarray(image[..., channels])


def image_of(sample: dict) -> np.ndarray:
    """Return the image in a sample of the test pipeline, RGB, as the model sees it."""
    image: Tensor = as_list(sample['inputs'])[0]
    return to_rgb(image.permute(1, 2, 0).cpu().numpy())


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


def draw_boundaries(
    image: np.ndarray, labels: np.ndarray, color: Color = WHITE, width: float | None = None
) -> np.ndarray:
    """Draw the boundaries between regions: an antialiased line with a dark seam, for bright and dark images.

    Args:
        image: The image.
        labels: (H, W) of integers, or finer, such as :func:`regions`.
        color: Color of the line.
        width: Width of the line in pixels; by default 1, or more on large images.
    """
    labels = _refine(labels, image)
    edges = np.zeros(labels.shape, np.uint8)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    scale = labels.shape[0] / image.shape[0]
    width = width or max(1, max(image.shape) / 640)
    picture = image.astype(np.float32)
    for side, paint, opacity in ((width + 1.6, (0, 0, 0), 0.4), (width, color, 0.95)):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(1, round(side * scale)),) * 2)
        line = cv2.dilate(edges * np.float32(opacity), kernel)
        line = cv2.resize(line, image.shape[1::-1], interpolation=cv2.INTER_AREA)[..., None]
        picture += line * (np.array(paint, np.float32) - picture)
    return picture.round().astype(np.uint8)


def fill_means(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Fill each region with its mean color; see :func:`draw_boundaries` for the labels."""
    labels = _refine(labels, image)
    fine = cv2.resize(image, labels.shape[::-1], interpolation=cv2.INTER_LINEAR)
    sums = [np.bincount(labels.ravel(), fine[..., channel].ravel()) for channel in range(3)]
    means = np.stack(sums, -1) / np.maximum(np.bincount(labels.ravel()), 1)[:, None]
    return _paint(means, labels, image.shape)


def draw_overlay(image: np.ndarray, labels: np.ndarray, opacity: float = 0.5) -> np.ndarray:
    """Tint each region with a color of its own, all of the same lightness; see :func:`draw_boundaries`."""
    labels = _refine(labels, image)
    hues = 2 * np.pi * np.random.default_rng(0).permutation(np.arange(labels.max() + 1) * 0.618034 % 1)
    lab = np.stack([np.full_like(hues, 65), 45 * np.cos(hues), 45 * np.sin(hues)], -1).astype(np.float32)
    tints = cv2.cvtColor(lab[None], cv2.COLOR_LAB2RGB)[0].clip(0, 1) * 255
    return cv2.addWeighted(image, 1 - opacity, _paint(tints, labels, image.shape), opacity, 0)


def heat_range(values: np.ndarray) -> tuple[float, float]:
    """Return the range of a heat map, robust against outliers: without the lowest and the highest 1 % of the values."""
    low, high = np.quantile(values, (CLIPPED, 1 - CLIPPED))
    return float(low), float(high)


def draw_heat(
    image: np.ndarray, record: Record, values: np.ndarray, limits: tuple[float, float], colormap: str = 'inferno'
) -> np.ndarray:
    """Draw values of tokens as a heat map, over the image in gray.

    Args:
        image: The image.
        record: The block of the values.
        values: One value per token, (⌈H/t⌉, ⌈W/t⌉).
        limits: Values of the darkest and the brightest color; what lies outside gets these colors.
        colormap: Name of a color map of Matplotlib.
    """
    n = _samples(record, image.shape[:2], 1)
    values = _crop(cv2.resize(values.astype(np.float32), None, fx=n, fy=n), record, n)
    values = cv2.resize(values, image.shape[1::-1], interpolation=cv2.INTER_AREA)
    values = (values - limits[0]) / max(limits[1] - limits[0], 1e-30)
    heat = (matplotlib.colormaps[colormap](values)[..., :3] * 255).astype(np.uint8)  # clips
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(gray, 0.3, heat, 0.7, 0)


def draw_attention(image: np.ndarray, attention: Attention) -> np.ndarray:
    """Draw the attention of a token, in the range of :func:`heat_range`, and a ring at the token."""
    weights = attention.weights if attention.weights.ndim == 2 else attention.weights.mean(0)
    picture = draw_heat(image, attention, weights, heat_range(weights))
    scale, stride = image.shape[0] / attention.size[0], attention.stride
    # The center of that part of the token that is in the image.
    y, x = (
        (index * stride + min((index + 1) * stride, side)) / 2 * scale
        for index, side in zip(attention.token, attention.size, strict=True)
    )
    center, radius = (round(x * 16), round(y * 16)), max(image.shape[:2]) / 80 + 2
    for color, thickness in (((0, 0, 0), 4), (WHITE, 2)):
        cv2.circle(picture, center, round(radius * 16), color, thickness, cv2.LINE_AA, shift=4)
    return picture


def draw_membership(image: np.ndarray, tokens: SuperTokens, index: int) -> np.ndarray:
    """Draw the membership of a super token as a heat map from 0 to its maximum.

    Raises:
        IndexError: There are not that many super tokens.
    """
    values = tokens.token_membership(index)
    return draw_heat(image, tokens, values, (0, values.max()), 'viridis')


def _samples(record: Record, shape: tuple[int, int], per_pixel: int = 3) -> int:
    """Return the samples per token that give so many per pixel of a picture; odd, to have one at the token's center."""
    pixels = max(record.stride * side / size for side, size in zip(shape, record.size, strict=True))
    return int(np.ceil(per_pixel * pixels)) // 2 * 2 + 1


def _crop(raster: np.ndarray, record: Record, samples: int) -> np.ndarray:
    """Cut off the part of the last tokens that is outside the image."""
    height, width = (round(side * samples / record.stride) for side in record.size)
    return raster[:height, :width]


def _refine(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return labels with at least three samples per pixel of the image."""
    times = int(np.ceil(3 * image.shape[0] / labels.shape[0]))
    return labels.repeat(times, 0).repeat(times, 1) if times > 1 else labels


def _paint(colors: np.ndarray, labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Color regions, and shrink them to a picture, which antialiases their edges."""
    picture = colors.round().astype(np.uint8)[labels]
    return cv2.resize(picture, shape[1::-1], interpolation=cv2.INTER_AREA)
