"""Compare label maps, of super tokens or superpixels, with the true regions of an image.

The measures are those of superpixel benchmarks, in the form of Stutz, Hermans and Leibe, "Superpixels: An Evaluation of
the State-of-the-Art" (CVIU 2018). A label map is (H, W) of integers; a region need not be connected.
"""

import cv2
import numpy as np

from mmstvit.errors import UserError


def boundaries(labels: np.ndarray) -> np.ndarray:
    """Return the pixels that have another label above, below, left or right: (H, W) of bool."""
    found = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        first, second = (np.moveaxis(found, axis, 0)[part] for part in (np.s_[:-1], np.s_[1:]))
        differ = np.moveaxis(np.diff(labels, axis=axis) != 0, axis, 0)
        first |= differ
        second |= differ
    return found


def boundary_recall(labels: np.ndarray, truth: np.ndarray, tolerance: int = 2) -> float:
    """Return the part of the true boundary that has a boundary of the label map nearby, from 0 to 1; higher is better.

    As defined by Martin, Fowlkes and Malik (PAMI 2004) and used for superpixels by Achanta et al. (SLIC, PAMI 2012),
    with their two pixels as default. A map with more boundary has a higher recall, whatever is in the image: compare
    maps of equal :func:`contour_density`, or name both.

    Args:
        labels: The label map.
        truth: The true regions.
        tolerance: Pixels to each side; "nearby" is the square of 2·tolerance + 1 pixels.

    Returns:
        The recall; NaN if the truth is one region.
    """
    true = boundaries(truth)
    near = cv2.dilate(boundaries(labels).astype(np.uint8), np.ones((2 * tolerance + 1,) * 2, np.uint8)) > 0
    return float(near[true].mean()) if true.any() else float('nan')


def undersegmentation_error(labels: np.ndarray, truth: np.ndarray) -> float:
    """Return how far regions of the label map leak across true regions, from 0 to 1; lower is better.

    The error of Neubert and Protzel ("Superpixel Benchmark and Comparison", 2012): the sum of
    min(pixels of S in G, pixels of S outside of G) over all regions S of the map and all true regions G that they
    overlap, divided by the number of pixels. A region across the boundary of two true regions counts twice with its
    smaller part.
    """
    sizes = overlaps(labels, truth)
    return float(np.minimum(sizes, sizes.sum(1, keepdims=True) - sizes).sum() / labels.size)


def overlaps(labels: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count the pixels of each region of the map in each true region: (regions, true regions)."""
    (names, rows), (true_names, columns) = (np.unique(values, return_inverse=True) for values in (labels, truth))
    counts = np.bincount(rows.ravel() * len(true_names) + columns.ravel(), minlength=len(names) * len(true_names))
    return counts.reshape(len(names), len(true_names))


def contour_density(labels: np.ndarray) -> float:
    """Return the part of all pixels that are at a boundary, from 0 to 1."""
    return float(boundaries(labels).mean())


def slic(image: np.ndarray, count: int, connected: bool = True) -> np.ndarray:
    """Segment an image into superpixels by SLIC of scikit-image with its default settings.

    Args:
        image: RGB, (H, W, 3) of uint8.
        count: Number of superpixels that SLIC is asked for.
        connected: Join small parts to a neighbor, as is usual; far fewer superpixels than ``count`` may remain. Without
            it regions may have several parts, as those of super tokens may.

    Raises:
        UserError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import slic as segment
    except ImportError as error:
        raise UserError(
            'SLIC needs scikit-image, which is not installed.',
            'Run: pip install "scikit-image>=0.22" (it is in the extra "scenes" of mmstvit).',
        ) from error
    return segment(image, n_segments=count, start_label=0, channel_axis=-1, enforce_connectivity=connected)


def merge_masks(masks: np.ndarray) -> np.ndarray:
    """Make a map of regions from the masks of objects, (n, H, W): 0 is the background, an object has its number from 1.

    Where masks overlap, the smallest object is on top.
    """
    labels = np.zeros(masks.shape[1:], np.int64)
    for index in np.argsort(-masks.sum((1, 2)), kind='stable'):
        labels[masks[index] > 0] = index + 1
    return labels
