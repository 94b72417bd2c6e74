"""Boxes, masks, maps and heat: what is where in a picture."""

import cv2
import numpy as np
import pytest

from mmstvit.drawing import (
    class_colors,
    draw_boundaries,
    draw_boxes,
    draw_heat,
    draw_map,
    draw_masks,
    draw_overlay,
    fill_means,
    to_rgb,
)

SIZE = HEIGHT, WIDTH = 50, 70
RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def halves(*size: int) -> np.ndarray:
    """Return labels: 3 left of the middle, 5 right of it."""
    return np.where(np.arange(size[1]) < size[1] // 2, 3, 5) * np.ones((size[0], 1), int)


def test_images_for_display():
    bgr = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(to_rgb(bgr), bgr[..., ::-1])
    np.testing.assert_array_equal(to_rgb(np.dstack([bgr, bgr])), bgr[..., ::-1])
    np.testing.assert_array_equal(to_rgb(np.array([[0, 65535]], np.uint16)), [[[0] * 3, [255] * 3]])


def test_boxes_are_frames_and_later_ones_are_on_top(picture):
    before = picture.copy()
    drawn = draw_boxes(picture, np.array([[10, 10, 40.2, 30], [10, 10, 60, 45], [-1e9, 5, 1e9, 5]]), [RED, BLUE, RED])
    assert (drawn[10, 20] == BLUE).all() and (drawn[30, 30] == RED).all() and (drawn[5] == RED).all()
    np.testing.assert_array_equal(drawn[15:28, 15:37], before[15:28, 15:37])
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize('scale', [1, 2])
def test_masks_are_half_transparent_with_an_outline(scale):
    mask = np.zeros((1, HEIGHT // scale, WIDTH // scale), bool)
    mask[0, 20 // scale : 40 // scale, 20 // scale : 50 // scale] = True
    drawn = draw_masks(np.full((*SIZE, 3), 101, np.uint8), mask, [RED])
    assert drawn[30, 35].tolist() == [178, 50, 50]
    assert np.abs(drawn[20, 35].astype(int) - RED).max() < 20, 'antialiased'
    assert (drawn[:18] == 101).all() and (drawn[43:] == 101).all()


@pytest.mark.parametrize('scale', [1, 5])
def test_map_has_colors_and_names_but_no_background(scale):
    names = ['background', 'left', 'right']
    labels = np.zeros((40, 80), np.uint8)
    labels[10:, :40], labels[10:, 40:], labels[:, 78:] = 1, 2, 255
    gray = np.full((40 * scale, 80 * scale, 3), 128, np.uint8)
    colors = class_colors(names)
    drawn = draw_map(gray, labels, names, colors)
    assert (drawn[: 9 * scale] == 128).all() and (drawn[:, 78 * scale :] == 128).all()
    for column, color in ((1, colors[1]), (76, colors[2])):
        np.testing.assert_allclose(drawn[-1, column * scale], (np.array(color) + 128) / 2, atol=1)
        rows, columns = np.nonzero((drawn == color).all(-1))
        assert len(rows) > 50, 'the name'
        assert abs(columns.mean() / scale - (20 if column == 1 else 59)) < 8


def test_maps_and_masks_of_nothing(picture):
    np.testing.assert_array_equal(draw_map(picture, np.full(SIZE, -1), ['a'], [RED]), picture)
    np.testing.assert_array_equal(draw_map(picture, np.zeros(SIZE, int), [], []), picture)
    np.testing.assert_array_equal(draw_masks(picture, np.zeros((0, *SIZE), bool), []), picture)
    np.testing.assert_array_equal(draw_boxes(picture, np.zeros((0, 4)), []), picture)


@pytest.mark.parametrize('side', [480, 960])
def test_boundaries_are_a_light_line_between_dark_ones_as_wide_as_the_image_is_large(side):
    line = draw_boundaries(np.full((40, side, 3), 128, np.uint8), halves(40, side))[20, :, 0].astype(int)
    light, dark = np.flatnonzero(line > 160), np.flatnonzero(line < 110)
    assert len(light) + len(dark) in ((2, 3) if side == 480 else (4, 5, 6))
    assert dark.min() < light.min() and light.max() < dark.max()


@pytest.mark.parametrize('shade', [0, 255])
def test_boundaries_are_visible_on_dark_and_bright_images_and_change_nothing_else(shade):
    before = np.full((20, 40, 3), shade, np.uint8)
    after = draw_boundaries(before, halves(20, 40))
    changed = np.abs(after.astype(int) - before).max((0, 2))
    assert changed.max() > 60
    assert set(np.flatnonzero(changed)) <= set(range(17, 23))


def test_means_are_those_of_regions(picture):
    labels = halves(*SIZE)
    filled = fill_means(picture, labels)
    for part in (np.s_[:, : WIDTH // 2 - 1], np.s_[:, WIDTH // 2 + 1 :]):
        expected = picture[part].reshape(-1, 3).mean(0)
        assert np.abs(filled[part].astype(int) - expected).max() < 3


def test_overlay_has_one_tint_per_region():
    gray = np.full((20, 40, 3), 128, np.uint8)
    overlay = draw_overlay(gray, halves(20, 40))
    colors = np.unique(overlay[:, [*range(19), *range(21, 40)]].reshape(-1, 3), axis=0)
    assert len(colors) == 2
    assert np.ptp(cv2.cvtColor(colors[None], cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)) < 8


@pytest.mark.parametrize('colormap', ['inferno', 'viridis'])
def test_heat_is_brighter_where_values_are_larger(colormap):
    heat = draw_heat(np.full((4, 9, 3), 128, np.uint8), np.arange(9.0).repeat(4).reshape(9, 4).T, (1, 7), colormap)
    light = cv2.cvtColor(heat, cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)
    assert (np.diff(light[1:8]) > 0).all() and light[0] == light[1] and light[7] == light[8]
