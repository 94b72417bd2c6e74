"""Text in one font; characters that it lacks, such as Chinese or emoji, come from the fonts of the system."""

import contextlib
import functools
import importlib.util
import re
import unicodedata
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .colors import Color

# Of Linux and macOS.
FOLDERS = ('/usr/share/fonts', '/usr/local/share/fonts', '~/.local/share/fonts', '~/.fonts', '/System/Library/Fonts')
# Fonts with pictures instead of outlines, mostly emoji, have one size each.
_SIZES = (109, 136, 160)
Run = tuple[str, ImageFont.FreeTypeFont]


def text_width(text: str, size: int) -> int:
    """Return the width of a line of text, in pixels; see :func:`write_text`."""
    return round(sum(_length(part, font, size) for part, font in _runs(text, size)))


def text_height(size: int) -> int:
    """Return the height of a line of text, in pixels."""
    return round(1.25 * size)


def write_text(picture: Image.Image, corner: tuple[float, float], text: str, size: int, color: Color) -> None:
    """Write a line of text.

    A character that no font has is spelled: a letter or syllable by its Latin name, an emoji by its name, others by
    their number.

    Args:
        picture: The picture, RGB.
        corner: Upper left corner of the line, (x, y).
        text: The text.
        size: Height of the font, in pixels.
        color: Color of the text.
    """
    x, baseline = corner[0], corner[1] + round(0.98 * size)
    for part, font in _runs(text, size):
        if font.size == size:
            ImageDraw.Draw(picture).text((x, baseline), part, color, font, anchor='ls', embedded_color=True)
        else:
            left, top, right, bottom = (round(side) for side in font.getbbox(part, anchor='ls'))
            glyphs = Image.new('RGBA', (max(right - left, 1), max(bottom - top, 1)))
            ImageDraw.Draw(glyphs).text((-left, -top), part, color, font, anchor='ls', embedded_color=True)
            scale = size / font.size
            glyphs = glyphs.resize([max(1, round(side * scale)) for side in glyphs.size])
            picture.paste(glyphs, (round(x + left * scale), round(baseline + top * scale)), glyphs)
        x += _length(part, font, size)


def _length(text: str, font: ImageFont.FreeTypeFont, size: int) -> float:
    return font.getlength(text) * size / font.size


@functools.lru_cache(1024)
def _runs(text: str, size: int) -> tuple[Run, ...]:
    """Divide a text by the fonts that have its characters."""
    runs: list[Run] = []
    for char in text:
        kind = unicodedata.category(char)
        if kind == 'Cf' or '\ufe00' <= char <= '\ufe0f':  # how neighbors are joined or shown
            continue
        char = ' ' if kind == 'Cc' or kind.startswith('Z') else char
        path = _find_font(char)
        char, path = (char, path) if path else (_spell(char), _default())
        font = _load(path, size)
        if runs and runs[-1][1] is font:
            runs[-1] = runs[-1][0] + char, font
        else:
            runs.append((char, font))
    return tuple(runs)


def _spell(char: str) -> str:
    """Return what is written for a character that no font has."""
    name = unicodedata.name(char, '')
    if not name or 'IDEOGRAPH' in name:
        return f'U+{ord(char):04X} '
    spelled = re.sub('.*(LETTER|SYLLABLE|CHARACTER|SIGN) ', '', name).lower()
    return spelled if spelled != name.lower() else f'[{spelled}]'


@functools.cache
def _find_font(char: str) -> Path | None:
    """Return the first font that has a character, of the own one and those of the system; None if there is none."""
    if unicodedata.category(char) in ('Cs', 'Cn'):  # no character at all
        return None
    for path in (_default(), *_system_fonts()):
        font = _load(path, _SIZES[0], ImageFont.Layout.BASIC)  # Pillow's other layout adds to a lone accent
        if font is not None:
            drawn, missing = map(font.getmask, (char, '\U0010ffff'))
            if (drawn.size, bytes(drawn)) != (missing.size, bytes(missing)):
                return path
    return None


@functools.cache
def _system_fonts() -> tuple[Path, ...]:
    """Return the font files of the system, upright sans-serif ones first."""
    found = (path for folder in FOLDERS for path in Path(folder).expanduser().rglob('*'))
    fonts = [path for path in found if path.suffix.lower() in ('.ttf', '.otf', '.ttc')]
    special = re.compile('serif|mono|italic|oblique|bold|light|thin', re.IGNORECASE)
    return tuple(sorted(fonts, key=lambda path: (bool(special.search(path.name)), path.name, path)))


@functools.cache
def _default() -> Path:
    """Return the font of Matplotlib, which has the letters of most alphabets; MMEngine needs Matplotlib."""
    package = Path(importlib.util.find_spec('matplotlib').origin).parent  # importing it takes long
    return package / 'mpl-data' / 'fonts' / 'ttf' / 'DejaVuSans.ttf'


@functools.lru_cache(256)
def _load(path: Path, size: int, layout: ImageFont.Layout | None = None) -> ImageFont.FreeTypeFont | None:
    """Load a font in a size, or in the one that it has; None if it cannot be read."""
    for pixels in (size, *_SIZES):
        with contextlib.suppress(OSError):
            return ImageFont.truetype(path, pixels, layout_engine=layout)
    return ImageFont.load_default(size) if path == _default() else None
