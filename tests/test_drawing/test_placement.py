"""Labels: none hides another, and the best have the first choice."""

import numpy as np
import pytest

from mmstvit.drawing import draw_labels
from mmstvit.drawing.placement import font_size, label_size

SIZE = HEIGHT, WIDTH = 200, 240
GRAY = np.full((*SIZE, 3), 128, np.uint8)
RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)
TEXT = label_size('name', font_size(SIZE))


def find(picture: np.ndarray, color: tuple) -> tuple[int, int, int, int] | None:
    """Return the corners of a label: left, top, right, bottom."""
    rows, columns = np.nonzero((picture == color).all(-1))
    return (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) if len(rows) else None


def draw(*boxes: tuple, texts: list | None = None) -> list:
    colors = [RED, GREEN, BLUE][: len(boxes)]
    picture = draw_labels(GRAY, np.array(boxes, float), texts or [['name']] * len(boxes), colors)
    return [find(picture, color) for color in colors]


def test_a_label_is_above_its_box_or_where_the_image_has_room():
    width, height = TEXT
    assert draw((50, 60, 150, 120)) == [(50, 60 - height, 50 + width, 60)]
    assert draw((50, 0, 150, 120)) == [(50, 0, 50 + width, height)]
    assert draw((-30, 60, 300, 120)) == [(0, 60 - height, width, 60)]
    assert (GRAY == 128).all()


def test_without_room_the_lowest_scores_have_no_label():
    box = 0, 0, TEXT[0], 2 * TEXT[1]
    picture = np.zeros((2 * TEXT[1], TEXT[0], 3), np.uint8)
    picture = draw_labels(picture, np.array([box] * 3), [['name']] * 3, [RED, GREEN, BLUE], [0.3, 0.9, 0.8])
    assert find(picture, RED) is None and find(picture, GREEN)[1] == 0 and find(picture, BLUE)[1] == TEXT[1]


def test_a_narrow_box_has_a_shorter_text_or_none():
    texts = [['name 0.98', 'name']] * 3
    wide = label_size('name 0.98', font_size(SIZE))[0]
    first, second, third = draw(
        (0, 50, wide, 60), (100, 50, 100 + TEXT[0], 60), (200, 50, 199 + TEXT[0], 60), texts=texts
    )
    assert first[2] - first[0] == wide and second[2] - second[0] == TEXT[0] and third is None


@pytest.mark.parametrize('seed', range(3))
def test_crowds(seed):
    """Each label that is shown is whole."""
    random = np.random.default_rng(seed)
    boxes = np.tile(random.uniform(0, 200, (60, 2)), 2) + np.array([0, 0, 40, 40])
    colors = [(50, i, 200) for i in range(60)]
    picture = draw_labels(GRAY, boxes, [['name']] * 60, colors)
    corners = [find(picture, color) for color in colors]
    shown = [box for box in corners if box]
    assert len(shown) > 20
    assert {(right - left, bottom - top) for left, top, right, bottom in shown} == {TEXT}
