"""Several pictures on one sheet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from .colors import WHITE, Color
from .fonts import text_height, text_width, write_text

GAP = 10
INK: Color = (20, 20, 20)


@dataclass(frozen=True)
class Panel:
    """A picture with its title.

    Args:
        picture: The picture, RGB, (H, W, 3).
        title: One line; a row without titles has no space for them.
    """

    picture: np.ndarray
    title: str = ''


def contact_sheet(
    rows: Sequence[Sequence[Panel]], heading: str = '', legend: Mapping[str, Color] | None = None
) -> np.ndarray:
    """Arrange panels in rows and columns, each below its title; one row is a strip.

    Rows of a single panel are put side by side where others have several.

    Args:
        rows: Panels.
        heading: Line above all.
        legend: Names and their colors, below the heading.

    Returns:
        The sheet, RGB, (H, W, 3).
    """
    singles = [row[0] for row in rows if len(row) == 1]
    rows = [row for row in rows if len(row) > 1]
    columns = max(map(len, rows), default=min(4, len(singles)))
    rows += [singles[i : i + columns] for i in range(0, len(singles), columns)]
    height, width = (max(panel.picture.shape[axis] for row in rows for panel in row) for axis in (0, 1))
    size = max(12, width // 24)
    lines = [size + GAP if any(panel.title for panel in row) else 0 for row in rows]
    top = size + 3 * GAP if heading else GAP // 2
    strip = draw_legend(legend, columns * (width + GAP) - GAP, size) if legend else None
    first = top if strip is None else top + len(strip) + GAP
    sheet = Image.new('RGB', (columns * (width + GAP) + GAP, first + sum(lines) + len(rows) * (height + GAP)), WHITE)
    _write_title(sheet, heading, (GAP, GAP), size + 4, sheet.width - 2 * GAP)
    if strip is not None:
        sheet.paste(Image.fromarray(strip), (GAP, top))
    y = first
    for row, line in zip(rows, lines, strict=True):
        for x, panel in enumerate(row):
            corner = GAP + x * (width + GAP), y
            _write_title(sheet, panel.title, corner, size, width)
            sheet.paste(Image.fromarray(panel.picture), (corner[0], y + line))
        y += line + height + GAP
    return np.asarray(sheet)


def draw_legend(colors: Mapping[str, Color], width: int, size: int) -> np.ndarray:
    """Draw names beside their colors on white, in as many lines as they need.

    Args:
        colors: Names and their colors.
        width: Width of the picture.
        size: Height of the font, in pixels.
    """
    places, x, y, line = [], 0, 0, text_height(size) + 4
    for name in colors:
        taken = text_width(name, size) + round(2.5 * size)
        x, y = (0, y + line) if x and x + taken > width else (x, y)
        places.append((x, y))
        x += taken
    picture = Image.new('RGB', (width, y + line), WHITE)
    for (name, color), (x, y) in zip(colors.items(), places, strict=True):
        ImageDraw.Draw(picture).rectangle((x, y + 2, x + size, y + size + 2), color, INK)
        write_text(picture, (x + round(1.4 * size), y), name, size, INK)
    return np.asarray(picture)


def _write_title(sheet: Image.Image, text: str, corner: tuple[int, int], size: int, width: int) -> None:
    """Write a line of text, smaller if it would be too wide."""
    while size > 8 and text_width(text, size) > width:
        size -= 1
    write_text(sheet, corner, text, size, INK)
