"""What is not an image, or not a whole one, is told as that, and whole ones are let through."""

import io

import pytest
from PIL import Image

from mmstvit.datasets.reading import UnreadableError, cut_short, damage, decode, read_bytes

from .tiny_data import draw


def encode(kind: str, side: int = 64, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw(0, side, side, 3)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG with another one in a segment before its own data, as cameras write it."""
    whole, thumbnail = encode('JPEG'), encode('JPEG', side=16)
    segment = b'Exif\0\0' + thumbnail
    return whole[:2] + b'\xff\xe1' + (len(segment) + 2).to_bytes(2, 'big') + segment + whole[2:]


WHOLE = {
    'baseline': encode('JPEG'),
    'progressive': encode('JPEG', progressive=True),
    'restart markers': encode('JPEG', restart_marker_rows=1),
    'thumbnail': with_thumbnail(),
    'bytes after the end': encode('JPEG') + b'\xff\xda trailer of a phone \xff\xd8',
    'png': encode('PNG'),
    'png and bytes after the end': encode('PNG') + b'\0' * 64,
    'bmp': encode('BMP'),
}


@pytest.mark.parametrize('name', WHOLE)
def test_whole_files_are_let_through(name, tmp_path):
    content = WHOLE[name]
    assert damage(content) is None
    assert decode(content, 'color', 'cv2').shape == (64, 64, 3)
    path = tmp_path / 'image'
    path.write_bytes(content)
    assert not cut_short(str(path))


@pytest.mark.parametrize('name', ['baseline', 'progressive', 'restart markers', 'thumbnail', 'png'])
@pytest.mark.parametrize('part', [0.3, 0.6, 0.999])
def test_what_is_cut_short_is_told(name, part, tmp_path):
    """Older versions of OpenCV decode most of these without an error."""
    content = WHOLE[name][: int(part * len(WHOLE[name]))]
    assert 'cut short' in damage(content)
    with pytest.raises(UnreadableError, match='cut short'):
        decode(content, 'color', 'cv2')
    path = tmp_path / 'image'
    path.write_bytes(content)
    assert cut_short(str(path))


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', '0 bytes'),
        (b'\n<!DOCTYPE html><html>quota exceeded</html>', 'web page'),
        (b'version https://git-lfs.github.com/spec/v1\n', 'git lfs pull'),
        (b'nothing of an image' * 10, 'cannot be decoded'),
    ],
)
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_what_is_no_image_is_told(content, reason, backend):
    with pytest.raises(UnreadableError, match=reason):
        decode(content, 'color', backend)


def test_a_png_with_a_damaged_middle_is_told():
    content = bytearray(WHOLE['png'])
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    with pytest.raises(UnreadableError, match='cannot be decoded'):
        decode(bytes(content), 'unchanged', 'pillow')


def test_files_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(UnreadableError, match='does not exist'):
        read_bytes(str(tmp_path / 'none.jpg'))
    with pytest.raises(UnreadableError, match='directory'):
        read_bytes(str(tmp_path))
