"""Panels of the blocks, on a sheet and in an animation."""

import numpy as np
import pytest

from mmstvit.errors import UserError
from mmstvit.visualization import contact_sheet, draw_blocks


def contains(sheet: np.ndarray, picture: np.ndarray) -> bool:
    height, width = picture.shape[:2]
    corners = np.argwhere((sheet == picture[0, 0]).all(-1))
    return any(np.array_equal(sheet[y : y + height, x : x + width], picture) for y, x in corners)


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
        shown = [contains(sheet, panel.picture) for sheet in sheets[1:3]]
        assert shown == [True, panel.kind == 'attention']
