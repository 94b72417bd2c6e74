"""Unreadable and truncated image files are recognized; whole files of all kinds are accepted."""

import io
import pickle
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from PIL import Image

from mmstvit.datasets.images import (
    IMAGE_READER,
    MAP_READER,
    Reader,
    UnreadableError,
    find_damage,
    find_readers,
    refuse_damaged_files,
)
from mmstvit.errors import UserError
from mmstvit.fileio import image_size

from .tiny_data import draw


def encode(kind: str, side: int = 64, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(draw(0, side, side, 3)).save(buffer, kind, **options)
    return buffer.getvalue()


def with_thumbnail() -> bytes:
    """A JPEG with a thumbnail in a segment before its own data, as cameras write it."""
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


def load(path: Path | str, **options: object) -> dict:
    """Load an image with a guarded pipeline's loader."""
    loader = LoadImageFromFile(**options)
    refuse_damaged_files(Compose([loader]))
    return loader(dict(img_path=str(path)))


@pytest.mark.parametrize('name', WHOLE)
def test_whole_files_are_accepted(name, tmp_path):
    assert IMAGE_READER.decode(WHOLE[name]).shape == (64, 64, 3)
    path = tmp_path / 'image'
    path.write_bytes(WHOLE[name])
    assert load(path)['img'].shape == (64, 64, 3)


@pytest.mark.parametrize(('name', 'refused'), [(b'\x1b[31mred', True), (b'\x9b31mred', True), (b'Display \xe9', False)])
def test_names_that_a_terminal_would_obey(name, refused, capfd):
    """Libpng writes the name of a damaged color profile to the terminal."""
    png, data = WHOLE['png'], b'iCCP' + name + b'\0\0' + zlib.compress(bytes(range(256)))
    chunk = (len(data) - 4).to_bytes(4, 'big') + data + zlib.crc32(data).to_bytes(4, 'big')
    content = png[:33] + chunk + png[33:]  # behind the header
    if refused:
        with pytest.raises(UnreadableError, match='color profile'):
            IMAGE_READER.decode(content)
        assert capfd.readouterr().err == ''
    else:
        assert IMAGE_READER.decode(content).shape == (64, 64, 3)


@pytest.mark.parametrize('name', ['baseline', 'progressive', 'restart markers', 'thumbnail', 'png'])
@pytest.mark.parametrize('part', [0.3, 0.6, 0.999])
def test_truncated_files_are_recognized(name, part, tmp_path):
    """Older versions of OpenCV decode most of these without an error."""
    content = WHOLE[name][: int(part * len(WHOLE[name]))]
    with pytest.raises(UnreadableError, match='truncated'):
        IMAGE_READER.decode(content)
    path = tmp_path / 'image'
    path.write_bytes(content)
    for options in ({}, dict(backend_args=dict(backend='local')), dict(file_client_args=dict(backend='disk'))):
        with pytest.raises(UnreadableError, match='truncated'):
            load(path, **options)


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
def test_other_content_is_named(content, reason, backend):
    with pytest.raises(UnreadableError, match=reason):
        Reader('img_path', 'color', backend).decode(content)


def test_png_with_a_damaged_middle_is_unreadable():
    content = bytearray(WHOLE['png'])
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    with pytest.raises(UnreadableError, match='cannot be decoded'):
        MAP_READER.decode(bytes(content))


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UnreadableError, match='does not exist'):
        IMAGE_READER.read(str(tmp_path / 'none.jpg'))
    with pytest.raises(UnreadableError, match='directory'):
        IMAGE_READER.read(str(tmp_path))


def test_loaders_of_other_backends_stay_as_they_are():
    loader = LoadImageFromFile(backend_args=dict(backend='lmdb', db_path='images.lmdb'))
    old = LoadImageFromFile(file_client_args=dict(backend='lmdb', db_path='images.lmdb'))
    pipeline = pickle.loads(pickle.dumps(Compose([loader, old])))
    refuse_damaged_files(pipeline)
    assert [reader.backend_args for reader in find_readers(pipeline)] == [loader.backend_args] * 2
    assert pipeline.transforms[1].file_client_args == old.file_client_args


def test_the_number_of_pixels_is_limited_before_anything_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / 'a.png'
    Image.new('L', (13_000, 13_000)).save(path)
    with pytest.raises(UnreadableError, match=r'13000 × 13000 pixels, more than 100,000,000\. .* MMSTVIT_MAX_PIXELS'):
        IMAGE_READER.read(str(path))
    assert image_size(path) is None
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '200000000')
    assert image_size(path) == (13_000, 13_000) and find_damage(path.read_bytes()) is None
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', 'many')
    with pytest.raises(UserError, match="MMSTVIT_MAX_PIXELS must be a number of pixels, but is 'many'"):
        image_size(path)


def encode_with_opencv(suffix: str, *shape: int, dtype: type = np.uint8) -> bytes:
    return cv2.imencode(suffix, np.ones(shape, dtype))[1].tobytes()


@pytest.mark.parametrize('shape', [(8, 6, 3), (8, 6, 4)])
@pytest.mark.parametrize('dtype', [np.uint16, np.float32])
def test_kinds_of_tiff_that_pillow_does_not_open_are_decoded(shape, dtype, monkeypatch):
    content = encode_with_opencv('.tif', *shape, dtype=dtype)
    reader = Reader('img_path', 'unchanged', 'cv2')
    assert reader.decode(content).shape == shape
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '40')
    with pytest.raises(UnreadableError, match='6 × 8 pixels'):
        reader.decode(content)


@pytest.mark.parametrize('shape', [(4, 8, 6), (8, 6, 12)], ids=['pages', 'channels'])
def test_the_limit_holds_for_all_that_tifffile_decodes(shape, tmp_path, monkeypatch):
    tifffile = pytest.importorskip('tifffile')
    path = tmp_path / 'a.tif'
    layout = 'contig' if shape[-1] == 12 else None
    tifffile.imwrite(path, np.ones(shape, np.uint8), photometric='minisblack', planarconfig=layout)
    reader = Reader('img_path', 'unchanged', 'tifffile')
    loader = Compose([LoadImageFromFile(imdecode_backend='tifffile', color_type='unchanged')])
    refuse_damaged_files(loader)
    assert reader.read(str(path)).size == np.prod(shape)
    assert loader(dict(img_path=str(path)))['img'].size == np.prod(shape)
    monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '60')
    for read in (lambda: reader.read(str(path)), lambda: loader(dict(img_path=str(path)))):
        with pytest.raises(UnreadableError, match=r'6 × 8 pixels in (4|12) channels of all pages, more than 60'):
            read()
    assert (find_damage(path.read_bytes(), 'cv2') is None) == (shape[0] == 4)  # it decodes the first page


@pytest.mark.parametrize('suffix', ['.hdr', '.pam'])
def test_a_format_whose_size_is_not_known_is_not_decoded(suffix):
    """OpenCV would decode any number of pixels."""
    content = encode_with_opencv(suffix, 8, 6, 3, dtype=np.float32 if suffix == '.hdr' else np.uint8)
    assert cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR).shape == (8, 6, 3)
    with pytest.raises(UnreadableError, match='size cannot be read'):
        IMAGE_READER.decode(content)
