"""Drawings of the blocks of a model, each with its title: for a sheet, a strip or an animation over the blocks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from mmstvit.drawing import Panel, contact_sheet, draw_boundaries, draw_overlay, fill_means, resize
from mmstvit.errors import UserError

from .records import Attention, Record, SuperTokens
from .token_maps import cells, draw_attention, draw_membership, heat_range, regions

SIDE = 480  # longer side of a panel, in pixels


@dataclass(frozen=True, kw_only=True)
class BlockPanel(Panel):
    """A drawing of a block; its title has the range of a heat map.

    Args:
        block: The block that it shows.
        kind: ``'grid'``, ``'boundaries'``, ``'means'``, ``'overlay'``, ``'attention'`` or ``'membership'``.
    """

    block: Record
    kind: str

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
) -> list[list[BlockPanel]]:
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
    image = resize(image, side or max([SIDE, *(16 * max(record.grid) for record in tokens)]))
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


def write_gif(path: Path, rows: Sequence[Sequence[BlockPanel]], heading: str = '', seconds: float = 0.8) -> None:
    """Write an animation over the blocks: boundaries, and the attention if there is any.

    Blocks with global attention are left out if there are others.
    """
    frames = [[panel for panel in row if panel.kind in ('boundaries', 'attention')] for row in rows]
    images = [Image.fromarray(contact_sheet([frame], heading)) for frame in frames if len(frame) == len(frames[0])]
    images[0].save(path, save_all=True, append_images=images[1:], duration=round(1000 * seconds), loop=0)


def _draw_tokens(image: np.ndarray, tokens: SuperTokens, grid: bool) -> list[BlockPanel]:
    shape = image.shape[:2]
    labels = regions(tokens, shape)
    drawings = {'boundaries': (draw_boundaries(image, labels), _name_block(tokens))}
    if grid:
        side = tokens.stoken_size * tokens.stride
        drawings['grid'] = draw_boundaries(image, cells(tokens, shape)), f'initial grid of {side}×{side} pixels'
    drawings['means'] = fill_means(image, labels), 'mean color of each super token'
    drawings['overlay'] = draw_overlay(image, labels), 'one color per super token'
    return [BlockPanel(*drawing, block=tokens, kind=kind) for kind, drawing in drawings.items()]


def _draw_attention(image: np.ndarray, attention: Attention, alone: bool) -> BlockPanel:
    low, high = (value / attention.weights.mean() for value in heat_range(attention.weights))
    title = f'attention {round(low, 2):g}–{high:.3g} × mean'
    title = f'{_name_block(attention)} · {title}' if alone else title
    return BlockPanel(draw_attention(image, attention), title, block=attention, kind='attention')


def _draw_membership(
    image: np.ndarray, tokens: SuperTokens, attention: Attention | None, soft: int | Literal['point']
) -> BlockPanel:
    if soft == 'point':
        if attention is None:
            raise UserError(
                'the super token at the point needs a point.', 'Set --point, or the index of a super token.'
            )
        soft = int(tokens.labels[attention.token])
    try:
        picture = draw_membership(image, tokens, soft)
    except IndexError as error:
        raise UserError(str(error)) from error
    title = f'membership of super token {soft}, 0–{tokens.token_membership(soft).max():.2g}'
    return BlockPanel(picture, title, block=tokens, kind='membership')


def _name_block(block: Record) -> str:
    """Return the title of a block: stage, block and grid."""
    kind = 'super tokens' if block.stoken_size > 1 else 'tokens'
    return f'stage {block.stage} block {block.block} · {block.grid[0]}×{block.grid[1]} {kind}'
