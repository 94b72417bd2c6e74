"""Text: signs of other fonts, and signs that no font has."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmstvit.drawing import fonts


@pytest.fixture(autouse=True)
def no_system_fonts(monkeypatch):
    """Only the font that comes with Matplotlib."""
    monkeypatch.setattr(fonts, 'FOLDERS', ())
    forget()
    yield
    forget()


def forget() -> None:
    for function in (fonts._runs, fonts._find_font, fonts._system_fonts, fonts._load):
        function.cache_clear()


def ink(text: str, size: int = 20) -> np.ndarray:
    """Return what is written, cut out: (H, W) of bool."""
    picture = Image.new('RGB', (fonts.text_width(text, size) + 40, 3 * size), 'white')
    fonts.write_text(picture, (10, size), text, size, (0, 0, 0))
    dark = np.asarray(picture).min(-1) < 128
    rows, columns = np.flatnonzero(dark.any(1)), np.flatnonzero(dark.any(0))
    assert len(rows) and rows[0] >= size - 2 and rows[-1] < size + fonts.text_height(size) + 2
    assert columns[0] >= 8 and columns[-1] < 12 + fonts.text_width(text, size)
    return dark[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def make_font(path, char: str) -> None:
    """Write a font in which one sign is a black square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(['.notdef', 'square'])
    builder.setupCharacterMap({ord(char): 'square'})
    builder.setupGlyf({'.notdef': TTGlyphPen(None).glyph(), 'square': pen.glyph()})
    builder.setupHorizontalMetrics({'.notdef': (500, 0), 'square': (800, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({'familyName': 'Square', 'styleName': 'Regular'})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.mark.parametrize(
    'text', ['person 0.98', 'Ä é ñ ß', 'собака', 'σκύλος', '犬', '🐶', 'いぬ', 'a\nb\tc', '\ud800']
)
def test_text_is_written_in_the_space_that_it_is_said_to_need(text):
    assert ink(text).sum() > 20


@pytest.mark.parametrize(
    ('text', 'spelled'),
    [
        ('犬', 'U+72AC '),
        ('🐶 dog', '[dog face] dog'),
        ('강아지', 'gangaji'),
        ('いぬ', 'inu'),
        ('कु', 'kau'),
        ('a\u0378', 'aU+0378 '),
        ('a\ud800', 'aU+D800 '),
        ('a\n\u2028b', 'a  b'),
        ('a\u200d\ufe0fb', 'ab'),
    ],
)
def test_signs_that_no_font_has_are_spelled(text, spelled):
    assert ''.join(part for part, _ in fonts._runs(text, 20)) == spelled


def test_a_font_of_the_system_has_what_the_own_one_lacks(tmp_path, monkeypatch):
    make_font(tmp_path / 'square.ttf', '犬')
    (tmp_path / 'a broken one.ttf').write_bytes(b'no font')
    monkeypatch.setattr(fonts, 'FOLDERS', (str(tmp_path), str(tmp_path / 'missing')))
    forget()
    square = ink('犬')
    assert square.all() and square.shape == (16, 16)
    assert fonts.text_width('a犬b', 20) == fonts.text_width('ab', 20) + 16
    assert [part for part, _ in fonts._runs('a犬犬b猫', 20)] == ['a', '犬犬', 'bU+732B ']


def test_a_font_of_one_size_is_scaled(tmp_path, monkeypatch):
    """As those of colored emoji are."""
    make_font(tmp_path / 'square.ttf', '🐶')
    monkeypatch.setattr(fonts, 'FOLDERS', (str(tmp_path),))
    load = fonts.ImageFont.truetype

    def load_one_size(path, size, **options):
        if path.name == 'square.ttf' and size != 109:
            raise OSError('invalid pixel size')
        return load(path, size, **options)

    monkeypatch.setattr(fonts.ImageFont, 'truetype', load_one_size)
    forget()
    square = ink('🐶')
    assert square.mean() > 0.9 and square.shape == (16, 16)
    assert fonts.text_width('a🐶b', 20) == fonts.text_width('ab', 20) + 16


def test_without_the_font_of_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setattr(fonts, '_default', lambda: tmp_path / 'missing.ttf')
    forget()
    assert ink('person').sum() > 20
    assert ''.join(part for part, _ in fonts._runs('Cat 1 犬', 20)) == 'Cat 1 U+72AC '


@given(st.text(max_size=20))
def test_any_text_is_written(text):
    width = fonts.text_width(text, 12)
    assert width >= 0
    fonts.write_text(Image.new('RGB', (width + 1, 20)), (0, 0), text, 12, (255, 255, 255))
