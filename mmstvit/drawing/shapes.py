"""Boxes, masks, label maps and heat maps on images.

Images are RGB, (H, W, 3) of uint8, and stay as they are: a picture is a copy. Maps and masks may have another size than
the image; they are fitted to it.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from .colors import BLACK, WHITE, Color, is_background
from .placement import font_size, label_size, place_labels

_COLORMAPS = {'inferno': cv2.COLORMAP_INFERNO, 'viridis': cv2.COLORMAP_VIRIDIS}


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


def resize(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an image to a longer side of so many pixels."""
    scale = side / max(image.shape[:2])
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def draw_boxes(image: np.ndarray, boxes: np.ndarray, colors: Sequence[Color]) -> np.ndarray:
    """Draw boxes, (n, 4) of corners in pixels, each in its color; later ones are on top."""
    picture, limit = image.copy(), np.tile(image.shape[1::-1], 2)
    for box, color in zip(np.asarray(boxes).round().clip(-9, limit + 9).astype(int).tolist(), colors, strict=True):
        cv2.rectangle(picture, box[:2], box[2:], color, _line_width(image))
    return picture


def draw_masks(image: np.ndarray, masks: Sequence, colors: Sequence[Color]) -> np.ndarray:
    """Draw masks, (n, H, W), half transparent with an outline, each in its color; later ones are on top."""
    picture = image.copy()
    for mask, color in zip(masks, colors, strict=True):
        mask = _fit(np.asarray(mask, np.uint8), image)
        inside = mask > 0
        picture[inside] = (0.5 * picture[inside] + 0.5 * np.array(color)).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, color, _line_width(image), cv2.LINE_AA)
    return picture


def draw_map(image: np.ndarray, labels: np.ndarray, names: Sequence[str], colors: Sequence[Color]) -> np.ndarray:
    """Draw a map of classes, (H, W), half transparent, with the name of each class in its largest region.

    A background is not painted, nor are values that are no class, such as 255.
    """
    labels = _fit(np.where((labels < 0) | (labels >= len(names)), len(names), labels).astype(np.uint16), image)
    painted = np.append([not is_background(name) for name in names], False)
    tints = np.append(np.asarray(colors, np.uint8).reshape(-1, 3), np.zeros((1, 3), np.uint8), 0)[labels]
    picture = np.where(painted[labels][..., None], cv2.addWeighted(image, 0.5, tints, 0.5, 0), image)
    size, entries = font_size(image.shape), []
    counts = np.bincount(labels.ravel(), minlength=len(painted))
    for i in np.argsort(-counts, kind='stable'):  # large ones choose their place first
        if not (painted[i] and counts[i]):
            continue
        _, regions, stats, _ = cv2.connectedComponentsWithStats((labels == i).astype(np.uint8))
        largest = (regions == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype(np.uint8)
        depth = cv2.distanceTransform(np.pad(largest, 1), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        width, height = label_size(names[i], size)
        x, y = (
            int(np.clip(place - side // 2, 0, max(limit - side, 0)))
            for place, side, limit in ((x, width, image.shape[1]), (y, height, image.shape[0]))
        )
        around = [(x + right * width // 2, y + down * height) for down in (0, 1, -1, 2, -2) for right in (0, 1, -1)]
        entries.append((names[i], colors[i], around))
    return place_labels(picture, entries)


def draw_boundaries(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Draw the boundaries between regions: an antialiased white line with dark sides, for bright and dark images.

    The line is 2 pixels wide on small images, 2.5 on one of 480 pixels, and so on.

    Args:
        image: The image.
        labels: (H, W) of integers; finer than the image for smooth lines.
    """
    labels = _refine(labels, image)
    edges = np.zeros(labels.shape, np.uint8)
    edges[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edges[1:] |= labels[1:] != labels[:-1]
    scale = labels.shape[0] / image.shape[0]
    width = max(2, max(image.shape) / 192)
    picture = image.astype(np.float32)
    for share, paint, opacity in ((1, BLACK, 0.75), (0.5, WHITE, 1)):
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(1, round(share * width * scale)),) * 2)
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
    return _paint(means, labels, image)


def draw_overlay(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Tint each region with a color of its own, all of the same lightness; see :func:`draw_boundaries`."""
    labels = _refine(labels, image)
    hues = 2 * np.pi * np.random.default_rng(0).permutation(np.arange(labels.max() + 1) * 0.618034 % 1)
    lab = np.stack([np.full_like(hues, 65), 45 * np.cos(hues), 45 * np.sin(hues)], -1).astype(np.float32)
    tints = cv2.cvtColor(lab[None], cv2.COLOR_LAB2RGB)[0].clip(0, 1) * 255
    return cv2.addWeighted(image, 0.5, _paint(tints, labels, image), 0.5, 0)


def draw_heat(
    image: np.ndarray, values: np.ndarray, limits: tuple[float, float], colormap: str = 'inferno'
) -> np.ndarray:
    """Draw values as a heat map over the image in gray.

    Args:
        image: The image.
        values: (H, W).
        limits: Values of the darkest and the brightest color; what lies outside gets these colors.
        colormap: ``'inferno'`` or ``'viridis'``.
    """
    values = cv2.resize(values.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_AREA)
    values = (values - limits[0]) / max(limits[1] - limits[0], 1e-30)
    heat = cv2.applyColorMap((values.clip(0, 1) * 255).round().astype(np.uint8), _COLORMAPS[colormap])
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(gray, 0.3, cv2.cvtColor(heat, cv2.COLOR_BGR2RGB), 0.7, 0)


def _line_width(image: np.ndarray) -> int:
    side = min(image.shape[:2])
    return max(2 if side >= 256 else 1, side // 300)


def _fit(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Resize a map of integers to an image."""
    if labels.shape == image.shape[:2]:
        return labels
    return cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)


def _refine(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return labels with at least three samples per pixel of the image."""
    times = int(np.ceil(3 * image.shape[0] / labels.shape[0]))
    return labels.repeat(times, 0).repeat(times, 1) if times > 1 else labels


def _paint(colors: np.ndarray, labels: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Color regions, and shrink them to the image, which antialiases their edges."""
    picture = colors.round().astype(np.uint8)[labels]
    return cv2.resize(picture, image.shape[1::-1], interpolation=cv2.INTER_AREA)
