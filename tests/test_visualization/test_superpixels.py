"""Measures of superpixels: known values, and plain loops over their definitions."""

import sys

import numpy as np
import pytest

from mmstvit.errors import UserError
from mmstvit.visualization.superpixels import (
    boundaries,
    boundary_recall,
    contour_density,
    merge_masks,
    slic,
    undersegmentation_error,
)

HALVES = np.repeat([[0, 0, 0, 0, 7, 7, 7, 7]], 6, axis=0)


def loop_boundaries(labels):
    height, width = labels.shape
    found = set()
    for y in range(height):
        for x in range(width):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            if any(0 <= v < height and 0 <= u < width and labels[v, u] != labels[y, x] for v, u in around):
                found.add((y, x))
    return found


def loop_recall(labels, truth, tolerance):
    found, true = loop_boundaries(labels), loop_boundaries(truth)
    hits = [any(max(abs(y - v), abs(x - u)) <= tolerance for v, u in found) for y, x in true]
    return sum(hits) / len(hits)


def loop_error(labels, truth):
    total = 0
    for name in set(labels.ravel().tolist()):
        for true_name in set(truth.ravel().tolist()):
            region, true = labels == name, truth == true_name
            total += min((region & true).sum(), (region & ~true).sum())
    return total / labels.size


@pytest.mark.parametrize('seed', range(6))
def test_measures_equal_plain_loops(seed):
    random = np.random.default_rng(seed)
    labels, truth = (np.kron(random.integers(-1, 4, (3, 4)), np.ones((3, 2), int))[:8, :7] for _ in range(2))
    assert set(zip(*map(list, np.nonzero(boundaries(labels))), strict=True)) == loop_boundaries(labels)
    assert contour_density(labels) == len(loop_boundaries(labels)) / 56
    assert undersegmentation_error(labels, truth) == pytest.approx(loop_error(labels, truth), abs=1e-12)
    for tolerance in range(3):
        expected = loop_recall(labels, truth, tolerance)
        assert boundary_recall(labels, truth, tolerance) == pytest.approx(expected, abs=1e-12)


def test_the_truth_itself_is_perfect():
    assert boundary_recall(HALVES, HALVES, 0) == 1
    assert undersegmentation_error(HALVES, HALVES) == 0
    assert contour_density(HALVES) == 2 / 8


def test_one_region_finds_nothing():
    one = np.zeros_like(HALVES)
    assert boundary_recall(one, HALVES, 2) == 0
    assert undersegmentation_error(one, HALVES) == 1
    assert np.isnan(boundary_recall(HALVES, one, 2))
    assert undersegmentation_error(HALVES, one) == 0


def test_single_pixels_have_recall_and_no_error():
    pixels = np.arange(HALVES.size).reshape(HALVES.shape)
    assert boundary_recall(pixels, HALVES, 0) == 1
    assert undersegmentation_error(pixels, HALVES) == 0
    assert contour_density(pixels) == 1


def test_a_shifted_boundary():
    shifted = np.roll(HALVES, 2, axis=1)
    shifted[:, :2] = 0  # the boundary is two pixels further right
    assert [boundary_recall(shifted, HALVES, tolerance) for tolerance in range(3)] == [0, 0.5, 1]
    # Two columns of eight are on the wrong side, and count for both true regions that their region overlaps.
    assert undersegmentation_error(shifted, HALVES) == 2 * 2 / 8


def test_unsigned_labels():
    assert boundaries(np.array([[3, 200]], np.uint8)).all()


def test_the_smallest_object_is_on_top():
    masks = np.zeros((3, 4, 4), np.uint8)
    masks[0, 1:3, 1:3], masks[1, :3, :3], masks[2, 3, 3] = 1, 1, 1
    assert merge_masks(masks).tolist() == [[2, 2, 2, 0], [2, 1, 1, 0], [2, 1, 1, 0], [0, 0, 0, 3]]
    assert not merge_masks(masks[:0]).any()


def test_slic_finds_a_square():
    image = np.zeros((48, 48, 3), np.uint8)
    image[12:36, 12:36] = 255
    truth = (image[..., 0] > 0).astype(int)
    labels = slic(image, 16)
    assert labels.shape == (48, 48) and labels.min() == 0 and len(np.unique(labels)) == labels.max() + 1
    assert boundary_recall(labels, truth, 1) > 0.95 and undersegmentation_error(labels, truth) < 0.05


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, 'skimage.segmentation', None)
    with pytest.raises(UserError, match='pip install') as caught:
        slic(np.zeros((8, 8, 3), np.uint8), 4)
    assert 'scikit-image' in caught.value.problem
