"""Drawings of super tokens and attention: what is where in a picture."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmstvit.errors import UserError
from mmstvit.visualization import attention_of, contact_sheet, draw_blocks, drawing, image_of, super_tokens, write_gif

from ..helpers import image, tiny

SIZE = HEIGHT, WIDTH = 50, 70  # the last tokens and cells are cut off
POINT = (41, 22)


@pytest.fixture(scope='module')
def records():
    model, pixels = tiny(), image(3, *SIZE)
    return super_tokens(model, pixels), attention_of(model, pixels, POINT)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


def halves(*size: int) -> np.ndarray:
    """Return labels: 3 left of the middle, 5 right of it."""
    return np.where(np.arange(size[1]) < size[1] // 2, 3, 5) * np.ones((size[0], 1), int)


def test_image_of_a_sample_is_rgb():
    bgr = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    np.testing.assert_array_equal(image_of(dict(inputs=bgr)), bgr.flip(0).permute(1, 2, 0).numpy())


@pytest.mark.parametrize('scale', [1, 2.5])
def test_regions_are_the_labels_at_the_centers_of_tokens(records, scale):
    for tokens in records[0]:
        shape = tuple(round(side * scale) for side in SIZE)
        regions = drawing.regions(tokens, shape)
        samples = regions.shape[0] / HEIGHT * tokens.stride
        assert min(np.divide(regions.shape, shape)) >= 3 and abs(samples - round(samples)) < 0.1
        samples = round(samples)
        centers = regions[samples // 2 :: samples, samples // 2 :: samples]
        np.testing.assert_array_equal(centers, tokens.labels[: centers.shape[0], : centers.shape[1]])


def test_cells_are_squares_counted_row_by_row(records):
    tokens = records[0][0]  # cells of 16 pixels
    cells = drawing.cells(tokens, SIZE)
    cells = cv2.resize(cells, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST_EXACT)
    rows, columns = np.arange(HEIGHT)[:, None] // 16, np.arange(WIDTH) // 16
    assert (cells != rows * tokens.grid[1] + columns).mean() < 0.01  # the size is rounded


@pytest.mark.parametrize('shade', [0, 255])
def test_boundaries_are_visible_on_dark_and_bright_images_and_change_nothing_else(shade):
    before = np.full((20, 40, 3), shade, np.uint8)
    after = drawing.draw_boundaries(before, halves(20, 40))
    changed = np.abs(after.astype(int) - before).max((0, 2))
    assert changed.max() > 60
    assert set(np.flatnonzero(changed)) <= set(range(17, 23))
    line = drawing.draw_boundaries(before, halves(20, 40), color=(255, 0, 0))[10, 20].astype(int)
    assert line[0] - line[1] > 150


def test_means_are_those_of_regions(picture):
    labels = halves(*SIZE)
    filled = drawing.fill_means(picture, labels)
    for part in (np.s_[:, : WIDTH // 2 - 1], np.s_[:, WIDTH // 2 + 1 :]):
        expected = picture[part].reshape(-1, 3).mean(0)
        assert np.abs(filled[part].astype(int) - expected).max() < 3


def test_overlay_has_one_tint_per_region():
    gray = np.full((20, 40, 3), 128, np.uint8)
    overlay = drawing.draw_overlay(gray, halves(20, 40))
    colors = np.unique(overlay[:, [*range(19), *range(21, 40)]].reshape(-1, 3), axis=0)
    assert len(colors) == 2
    assert np.ptp(cv2.cvtColor(colors[None], cv2.COLOR_RGB2LAB)[0, :, 0].astype(int)) < 8


def test_heat_is_brightest_at_the_largest_weight_and_is_clipped(records, picture):
    record = records[1][0]
    values = np.zeros_like(record.weights)
    values[5, 9], values[8, 2] = 2.0, 1.0
    gray = np.full_like(picture, 128)
    heat = drawing.draw_heat(gray, record, values, (0, 1)).astype(int).sum(-1)
    assert heat[5 * 4 + 2, 9 * 4 + 2] == heat.max()
    y, x = np.argwhere(heat > (heat.max() + heat.min()) / 2).T
    tokens = set(zip(y // record.stride, x // record.stride, strict=True))
    assert {(5, 9), (8, 2)} <= tokens
    assert all(abs(y - 5) + abs(x - 9) <= 2 or abs(y - 8) + abs(x - 2) <= 2 for y, x in tokens)
    larger = drawing.draw_heat(cv2.resize(gray, None, fx=3, fy=3), record, values, (0, 1))
    smaller = cv2.resize(larger, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA).astype(int).sum(-1)
    assert np.abs(smaller - heat).mean() < 9


def test_range_of_a_heat_map_does_not_depend_on_outliers():
    values = np.linspace(1, 2, 1000)
    values[0], values[-1] = -1e9, 1e9
    assert drawing.heat_range(values) == pytest.approx((1.01, 1.99), abs=0.001)


def test_attention_is_marked_at_the_token(records, picture):
    attention = records[1][0]
    weights = attention.weights
    bare = drawing.draw_heat(picture, attention, weights, drawing.heat_range(weights))
    y, x = np.argwhere((drawing.draw_attention(picture, attention) != bare).any(-1)).mean(0)
    assert (y // 4, x // 4) == attention.token == (POINT[1] // 4, POINT[0] // 4)


def test_the_ring_of_a_token_that_is_partly_padding_is_in_the_image(picture):
    attention = attention_of(tiny(), image(3, *SIZE), (WIDTH - 1, HEIGHT - 1))[-1]
    assert attention.stride == 32 and attention.token == (1, 2)
    white = np.argwhere((drawing.draw_attention(picture * 0, attention) > 200).all(-1)).mean(0)
    assert np.abs(white - (41, 67)).max() <= 2  # the token has rows 32 to 49 and columns 64 to 69


def test_rows_have_titles_with_stage_block_and_grid(records, picture):
    rows = draw_blocks(picture, *records, soft='point', grid=True)
    kinds = [[panel.kind for panel in row] for row in rows]
    full = ['boundaries', 'grid', 'means', 'overlay', 'attention', 'membership']
    assert kinds == [full, full, ['attention'], ['attention'], ['attention']]
    assert rows[1][0].title == 'stage 1 block 0 · 4×5 super tokens'
    assert rows[3][0].title.startswith('stage 2 block 1 · 4×5 tokens · attention ')
    assert f'super token {records[0][1].labels[records[1][1].token]},' in rows[1][-1].title
    assert rows[3][0].name == 'stage2_block1_attention'
    assert {panel.picture.shape for row in rows for panel in row} == {(343, 480, 3)}


def test_panels_of_large_grids_are_larger(records, picture):
    assert draw_blocks(picture, records[0][:1], side=60)[0][0].picture.shape == (43, 60, 3)
    pixels = image(3, 32, 16 * 40)
    rows = draw_blocks(np.zeros((32, 16 * 40, 3), np.uint8), super_tokens(tiny(), pixels))
    assert rows[0][0].picture.shape == (32, 640, 3)


@pytest.mark.parametrize('soft', ['point', 20, -1])
def test_membership_of_a_super_token_that_is_not_there_is_refused(records, picture, soft):
    with pytest.raises(UserError):
        draw_blocks(picture, records[0], soft=soft)


def test_sheet_puts_single_panels_side_by_side(records, picture):
    rows = draw_blocks(picture, *records, side=60)
    sheets = [contact_sheet(rows[:2]), contact_sheet(rows), contact_sheet(rows[2:]), contact_sheet(rows[:1], 'heading')]
    two, three, one, headed = (sheet.shape[0] for sheet in sheets)
    assert three - two == two - one > 43
    assert headed > one
    assert [sheet.shape[1] // 60 for sheet in sheets] == [4, 4, 3, 4]
    for panel in (rows[0][0], rows[4][0]):
        places = [cv2.matchTemplate(sheet, panel.picture, cv2.TM_SQDIFF).min() for sheet in sheets[1:3]]
        assert places[0] == 0
        assert (places[1] == 0) == (panel.kind == 'attention')


def test_animation_has_a_frame_per_block_with_super_tokens(records, picture, tmp_path):
    for tokens, attention, count in ((*records, 2), ((), records[1][2:], 3)):
        rows = draw_blocks(picture, tokens, attention, side=60)
        write_gif(tmp_path / 'a.gif', rows)
        assert Image.open(tmp_path / 'a.gif').n_frames == count
