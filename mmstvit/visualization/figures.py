"""Arrange drawings of super tokens and attention: a contact sheet, a strip, an animation over the blocks."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmstvit.errors import UserError

from . import drawing
from .records import Attention, Record, SuperTokens

GAP = 10
SIDE = 480  # longer side of a panel, in pixels


@dataclass(frozen=True)
class Panel:
    """A drawing with its title.

    Args:
        block: The block that it shows.
        kind: ``'grid'``, ``'boundaries'``, ``'means'``, ``'overlay'``, ``'attention'`` or ``'membership'``.
        title: One line; it has the range of a heat map.
        picture: The drawing, (H, W, 3).
    """

    block: Record
    kind: str
    title: str
    picture: np.ndarray

    @property
    def name(self) -> str:
        """Name for a file, such as ``'stage0_block2_boundaries'``."""
        return f'stage{self.block.stage}_block{self.block.block}_{self.kind}'


def draw_blocks(
    image: np.ndarray,
    tokens: Sequence[SuperTokens],
    attention: Sequence[Attention] = (),
    soft: int | Literal['point'] | None = None,
    grid: bool = False,
    side: int | None = None,
) -> list[list[Panel]]:
    """Draw the panels of each block.

    Args:
        image: The image, RGB, as the model sees it; see :func:`mmstvit.visualization.image_of`.
        tokens: Super tokens, see :func:`mmstvit.visualization.super_tokens`.
        attention: Attention of a point, see :func:`mmstvit.visualization.attention_of`.
        soft: Also draw the membership of this super token; ``'point'``: of that to which the point belongs most.
        grid: Also draw the initial grid.
        side: Longer side of a panel, in pixels; by default 480, or more for large grids.

    Returns:
        A row of panels per block, in the order of the blocks. Blocks with global attention have the attention only.

    Raises:
        UserError: There is no super token ``soft`` in a block, or no point.
    """
    image = _resize(image, side or max([SIDE, *(16 * max(record.grid) for record in tokens)]))
    of_point = {record.name: record for record in attention}
    of_block = {record.name: record for record in tokens}
    blocks = sorted({**of_point, **of_block}.values(), key=lambda block: (block.stage, block.block))
    rows = []
    for block in blocks:
        row = _draw_tokens(image, of_block[block.name], grid) if block.name in of_block else []
        if block.name in of_point:
            row.append(_draw_attention(image, of_point[block.name], alone=not row))
        if soft is not None and block.name in of_block:
            row.append(_draw_membership(image, of_block[block.name], of_point.get(block.name), soft))
        rows.append(row)
    return rows


def _draw_tokens(image: np.ndarray, tokens: SuperTokens, grid: bool) -> list[Panel]:
    shape = image.shape[:2]
    labels = drawing.regions(tokens, shape)
    panels = [
        Panel(tokens, 'boundaries', describe(tokens), drawing.draw_boundaries(image, labels)),
        Panel(tokens, 'means', 'mean color of each super token', drawing.fill_means(image, labels)),
        Panel(tokens, 'overlay', 'one color per super token', drawing.draw_overlay(image, labels)),
    ]
    if grid:
        picture, side = drawing.draw_boundaries(image, drawing.cells(tokens, shape)), tokens.stoken_size * tokens.stride
        panels.insert(1, Panel(tokens, 'grid', f'initial grid of {side}×{side} pixels', picture))
    return panels


def _draw_attention(image: np.ndarray, attention: Attention, alone: bool) -> Panel:
    low, high = (value / attention.weights.mean() for value in drawing.heat_range(attention.weights))
    title = f'attention {round(low, 2):g}–{high:.3g} × mean'
    title = f'{describe(attention)} · {title}' if alone else title
    return Panel(attention, 'attention', title, drawing.draw_attention(image, attention))


def _draw_membership(
    image: np.ndarray, tokens: SuperTokens, attention: Attention | None, soft: int | Literal['point']
) -> Panel:
    if soft == 'point':
        if attention is None:
            raise UserError(
                'the super token at the point needs a point.', 'Set --point, or the index of a super token.'
            )
        soft = int(tokens.labels[attention.token])
    try:
        picture = drawing.draw_membership(image, tokens, soft)
    except IndexError as error:
        raise UserError(str(error)) from error
    title = f'membership of super token {soft}, 0–{tokens.token_membership(soft).max():.2g}'
    return Panel(tokens, 'membership', title, picture)


def describe(block: Record) -> str:
    """Return the title of a block: stage, block and grid."""
    kind = 'super tokens' if block.stoken_size > 1 else 'tokens'
    return f'stage {block.stage} block {block.block} · {block.grid[0]}×{block.grid[1]} {kind}'


def contact_sheet(rows: Sequence[Sequence[Panel]], heading: str = '') -> np.ndarray:
    """Arrange panels of equal size in rows, each below its title; one row is a strip over the blocks.

    Rows of a single panel, such as those of blocks with global attention, are put side by side.

    Args:
        rows: Panels.
        heading: Line above all.

    Returns:
        The sheet, RGB, (H, W, 3).
    """
    singles = [row[0] for row in rows if len(row) == 1]
    rows = [row for row in rows if len(row) > 1]
    width = max(map(len, rows), default=min(4, len(singles)))
    rows += [singles[i : i + width] for i in range(0, len(singles), width)]
    height, side = rows[0][0].picture.shape[:2]
    font = max(12, side // 24)
    line, top = font + GAP, font + 3 * GAP if heading else GAP // 2
    size = width * (side + GAP) + GAP, top + len(rows) * (line + height + GAP)
    sheet = Image.new('RGB', size, drawing.WHITE)
    draw = ImageDraw.Draw(sheet)
    _write(draw, heading, (GAP, GAP), font + 4, size[0] - 2 * GAP)
    for y, row in enumerate(rows):
        for x, panel in enumerate(row):
            corner = GAP + x * (side + GAP), top + y * (line + height + GAP)
            _write(draw, panel.title, corner, font, side)
            sheet.paste(Image.fromarray(panel.picture), (corner[0], corner[1] + line))
    return np.asarray(sheet)


def write_gif(path: Path, rows: Sequence[Sequence[Panel]], heading: str = '', seconds: float = 0.8) -> None:
    """Write an animation over the blocks: boundaries, and the attention if there is any.

    Blocks with global attention are left out if there are others.
    """
    frames = [[panel for panel in row if panel.kind in ('boundaries', 'attention')] for row in rows]
    images = [Image.fromarray(contact_sheet([frame], heading)) for frame in frames if len(frame) == len(frames[0])]
    images[0].save(path, save_all=True, append_images=images[1:], duration=round(1000 * seconds), loop=0)


def _resize(image: np.ndarray, side: int) -> np.ndarray:
    scale = side / max(image.shape[:2])
    size = [max(1, round(length * scale)) for length in image.shape[1::-1]]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)


def _write(draw: ImageDraw.ImageDraw, text: str, corner: tuple[int, int], size: int, width: int) -> None:
    """Write a line of text, smaller if it would be too wide."""
    while size > 8 and draw.textlength(text, load_font(size)) > width:
        size -= 1
    draw.text(corner, text, (20, 20, 20), load_font(size))


@functools.cache
def load_font(size: int) -> ImageFont.FreeTypeFont:
    """Load the font of Matplotlib, which has the letters of most alphabets; OpenCV's have ASCII only."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / 'fonts/ttf/DejaVuSans.ttf'), size)
