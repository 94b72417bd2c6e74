"""Drawings of super tokens and attention of one block: what is where in a picture."""

import cv2
import numpy as np
import pytest
import torch

from mmstvit.visualization import attention_of, image_of, token_maps

from ..helpers import image, tiny
from .conftest import HEIGHT, POINT, SIZE, WIDTH


def test_image_of_a_sample_is_rgb():
    bgr = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    np.testing.assert_array_equal(image_of(dict(inputs=bgr)), bgr.flip(0).permute(1, 2, 0).numpy())


@pytest.mark.parametrize('scale', [1, 2.5])
def test_regions_are_the_labels_at_the_centers_of_tokens(records, scale):
    for tokens in records[0]:
        shape = tuple(round(side * scale) for side in SIZE)
        regions = token_maps.regions(tokens, shape)
        samples = regions.shape[0] / HEIGHT * tokens.stride
        assert min(np.divide(regions.shape, shape)) >= 3 and abs(samples - round(samples)) < 0.1
        samples = round(samples)
        centers = regions[samples // 2 :: samples, samples // 2 :: samples]
        np.testing.assert_array_equal(centers, tokens.labels[: centers.shape[0], : centers.shape[1]])


def test_cells_are_squares_counted_row_by_row(records):
    tokens = records[0][0]  # cells of 16 pixels
    cells = token_maps.cells(tokens, SIZE)
    cells = cv2.resize(cells, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST_EXACT)
    rows, columns = np.arange(HEIGHT)[:, None] // 16, np.arange(WIDTH) // 16
    assert (cells != rows * tokens.grid[1] + columns).mean() < 0.01  # the size is rounded


def test_heat_is_brightest_at_the_largest_weight_and_is_clipped(records, picture):
    record = records[1][0]
    values = np.zeros_like(record.weights)
    values[5, 9], values[8, 2] = 2.0, 1.0
    gray = np.full_like(picture, 128)
    heat = token_maps.draw_weights(gray, record, values, (0, 1)).astype(int).sum(-1)
    assert heat[5 * 4 + 2, 9 * 4 + 2] == heat.max()
    y, x = np.argwhere(heat > (heat.max() + heat.min()) / 2).T
    tokens = set(zip(y // record.stride, x // record.stride, strict=True))
    assert {(5, 9), (8, 2)} <= tokens
    assert all(abs(y - 5) + abs(x - 9) <= 2 or abs(y - 8) + abs(x - 2) <= 2 for y, x in tokens)
    larger = token_maps.draw_weights(cv2.resize(gray, None, fx=3, fy=3), record, values, (0, 1))
    smaller = cv2.resize(larger, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(int).sum(-1)
    assert np.abs(smaller - heat).mean() < 9


def test_attention_is_marked_at_the_token(records, picture):
    attention = records[1][0]
    weights = attention.weights
    bare = token_maps.draw_weights(picture, attention, weights, token_maps.heat_range(weights))
    y, x = np.argwhere((token_maps.draw_attention(picture, attention) != bare).any(-1)).mean(0)
    assert (y // 4, x // 4) == attention.token == (POINT[1] // 4, POINT[0] // 4)


def test_the_ring_of_a_token_that_is_partly_padding_is_in_the_image(picture):
    attention = attention_of(tiny(), image(3, *SIZE), (WIDTH - 1, HEIGHT - 1))[-1]
    assert attention.stride == 32 and attention.token == (1, 2)
    white = np.argwhere((token_maps.draw_attention(picture * 0, attention) > 200).all(-1)).mean(0)
    assert np.abs(white - (41, 67)).max() <= 2  # the token has rows 32 to 49 and columns 64 to 69
