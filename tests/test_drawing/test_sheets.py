"""Contact sheets and legends: what is where, and how large."""

import cv2
import numpy as np

from mmstvit.drawing import Panel, contact_sheet, draw_legend

RED, BLUE = (200, 0, 0), (0, 0, 200)


def panel(color: tuple, title: str = '', height: int = 40, width: int = 60) -> Panel:
    return Panel(np.full((height, width, 3), color, np.uint8), title)


def find(sheet: np.ndarray, color: tuple) -> tuple[int, ...]:
    """Return the corners of a color: left, top, right, bottom."""
    return tuple(cv2.boundingRect((sheet == color).all(-1).astype(np.uint8)))


def test_panels_are_in_rows_and_columns_below_their_titles():
    sheet = contact_sheet([[panel(RED), panel((0, 9, 0))], [panel(BLUE, 'a'), panel((0, 8, 0), 'b')]])
    assert sheet.shape[1] == 2 * 70 + 10
    left, top, width, height = find(sheet, RED)
    assert (left, width, height) == (10, 60, 40)
    assert find(sheet, BLUE)[1] > top + 60, 'a title is between'
    assert (sheet[top + 40 : find(sheet, BLUE)[1], :70] < 128).any()
    assert find(sheet, (0, 9, 0)) == (80, top, 60, 40)


def test_panels_of_other_sizes_have_as_much_room_as_the_largest():
    sheet = contact_sheet([[panel(RED, height=20, width=30), panel(BLUE)], [panel((0, 9, 0)), panel((0, 8, 0))]])
    assert find(sheet, RED)[2:] == (30, 20) and find(sheet, BLUE)[0] == 80
    assert find(sheet, (0, 9, 0))[1] == find(sheet, RED)[1] + 50


def test_a_long_title_is_written_smaller_and_stays_above_its_panel():
    sheet = contact_sheet([[panel(RED, 'wide ' * 3), panel(BLUE)]])
    above = sheet[: find(sheet, RED)[1]]
    assert (above[:, :80] < 128).any() and (above[:, 80:] == 255).all()


def test_heading_and_legend_are_above_all():
    rows = [[panel((0, 9, 0)), panel((0, 8, 0))]]
    plain, headed, both = (
        contact_sheet(rows, *more) for more in ((), ('heading',), ('heading', {'cat': RED, 'dog': BLUE}))
    )
    assert plain.shape[0] < headed.shape[0] < both.shape[0]
    assert find(both, RED)[1] > 20 and sum(find(both, RED)[1::2]) < find(both, (0, 9, 0))[1]


def test_a_legend_has_as_many_lines_as_it_needs():
    colors = {f'class {i}': (i, 0, 200) for i in range(9)}
    wide, narrow = (draw_legend(colors, width, 12) for width in (2000, 200))
    assert narrow.shape[0] % wide.shape[0] == 0 and narrow.shape[0] > 2 * wide.shape[0]
    for legend in (wide, narrow):
        boxes = [find(legend, color) for color in colors.values()]
        assert {box[2:] for box in boxes} == {(11, 11)} and len(set(boxes)) == 9
    assert draw_legend({'a name that is much too long': RED}, 20, 12).shape[1] == 20
