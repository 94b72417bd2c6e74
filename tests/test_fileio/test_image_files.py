"""Files of images: folders are walked without loops and without results of our tools; sizes are those of a pipeline."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mmstvit.fileio import (
    IMAGE_SUFFIXES,
    ImageError,
    decodable,
    has_pages,
    image_size,
    limited_images,
    mark_results,
    open_image,
    walk_folder,
)

PICTURE = Image.fromarray(np.arange(24 * 40 * 3, dtype=np.uint8).reshape(24, 40, 3))


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def listed(root: Path) -> list[str]:
    return [(folder / name).relative_to(root).as_posix() for folder, names in walk_folder(root) for name in names]


class TestWalk:
    def test_hidden_and_system_files_are_left_out(self, tmp_path):
        touch(tmp_path, 'b.jpg', 'a.txt', 'x/c.jpg', '.d.jpg', '.e/e.jpg', '__MACOSX/x/._c.jpg', 'Thumbs.db')
        assert listed(tmp_path) == ['a.txt', 'b.jpg', 'x/c.jpg']

    def test_links_to_folders_are_followed_without_endless_loops(self, tmp_path):
        touch(tmp_path, 'data/cats/1.jpg', 'elsewhere/2.jpg')
        for name, target in {'dogs': 'elsewhere', 'birds': 'elsewhere', 'cats/up': 'data', 'gone': 'nowhere'}.items():
            (tmp_path / 'data' / name).symlink_to(tmp_path / target)
        assert listed(tmp_path / 'data') == ['birds/2.jpg', 'cats/1.jpg', 'dogs/2.jpg']

    def test_links_out_of_the_data_are_bounded(self, tmp_path):
        """A link to the root of the disk, one that may not be followed, and folders that link to each other twice."""
        touch(tmp_path, 'data/1.jpg', *(f'out/{i}/2.jpg' for i in range(40)))
        for i in range(39):
            for name in ('a', 'b'):
                (tmp_path / 'out' / str(i) / name).symlink_to(tmp_path / 'out' / str(i + 1))
        for name, target in {'all': '/', 'bomb': tmp_path / 'out' / '0', 'loop': 'loop', 'deep': '/x' * 2000}.items():
            (tmp_path / 'data' / name).symlink_to(target)
        assert listed(tmp_path / 'data') == ['1.jpg', *(f'bomb/{"a/" * i}2.jpg' for i in range(40))]

    def test_results_of_our_tools_are_left_out_unless_they_are_named(self, tmp_path):
        touch(tmp_path, '1.jpg', 'predictions/pictures/1.jpg', 'predictions/predictions.csv')
        mark_results(tmp_path / 'predictions')
        assert listed(tmp_path) == ['1.jpg']
        assert listed(tmp_path / 'predictions') == ['predictions.csv', 'pictures/1.jpg']


class TestSize:
    @pytest.mark.parametrize('orientation', [None, 1, 3, 6, 8])
    @pytest.mark.parametrize('suffix', ['.jpg', '.png', '.tif', '.webp', '.avif', '.mpo'])
    def test_size_is_that_of_the_decoded_image(self, tmp_path, suffix, orientation):
        exif = Image.Exif()
        if orientation is not None:
            exif[274] = orientation
        path = tmp_path / f'image{suffix}'
        parts = dict(format='MPO', save_all=True, append_images=[PICTURE]) if suffix == '.mpo' else {}
        PICTURE.save(path, exif=exif, **parts)
        for backend in ('cv2', 'pillow'):
            for color in ('color', 'grayscale', 'unchanged'):
                decoded = mmcv.imfrombytes(path.read_bytes(), flag=color, backend=backend)
                assert image_size(path, backend, turns=color != 'unchanged') == decoded.shape[1::-1], (backend, color)

    def test_a_png_is_not_decoded_and_its_exif_may_stand_behind_the_pixels(self, tmp_path, monkeypatch):
        exif = Image.Exif()
        exif[274] = 6
        path = tmp_path / 'image.png'
        PICTURE.save(path, exif=exif)
        start, _, rest = path.read_bytes().partition(b'IDAT')
        chunk = start[start.index(b'eXIf') - 4 : -4]
        content = start.replace(chunk, b'') + b'IDAT' + rest
        path.write_bytes(content[:-12] + chunk + content[-12:])
        assert image_size(path) == mmcv.imread(path).shape[1::-1] == (24, 40)
        PICTURE.save(path)
        monkeypatch.setattr('PIL.PngImagePlugin.PngImageFile.load', None)
        assert image_size(path) == (40, 24)

    def test_a_file_that_is_no_image_has_no_size(self, tmp_path):
        (tmp_path / 'a.jpg').write_text('text')
        assert image_size(tmp_path / 'a.jpg') is None
        assert image_size(tmp_path / 'gone.jpg') is None


# Pillow writes .dib without the header by which OpenCV knows it; HEIC has a test of its own.
OTHERS = {'.dib', '.heic', '.heif'}


@pytest.mark.parametrize('suffix', sorted(Image.registered_extensions().keys() & set(IMAGE_SUFFIXES) - OTHERS))
def test_every_suffix_is_decoded_by_the_pipelines(tmp_path, suffix):
    path = tmp_path / f'image{suffix}'
    (PICTURE.convert('1') if suffix == '.pbm' else PICTURE).save(path)
    assert mmcv.imfrombytes(path.read_bytes()).shape == (24, 40, 3)


class TestLimitedImages:
    @pytest.mark.parametrize(
        'make',
        [
            lambda image: mmcv.imresize(image, (40_000, 40_000)),
            lambda image: mmcv.imresize(image, (40_000, 40_000), backend='pillow'),
            lambda image: mmcv.impad(image, shape=(40_000, 40_000)),
            lambda image: mmcv.imrotate(image, 45, auto_bound=True, scale=10_000.0),
            lambda image: cv2.resize(src=image, dsize=None, fx=4000, fy=4000),
            lambda image: cv2.warpPerspective(image, np.eye(3), dsize=(40_000, 40_000)),
            lambda image: np.pad(image, [(0, 40_000), (0, 40_000), (0, 0)]),
            lambda image: np.full((40_000, 40_000, 3), 0, image.dtype),
        ],
    )
    def test_no_larger_image_is_made(self, make):
        image = np.zeros((2, 20, 3), np.uint8)
        with limited_images(), limited_images(), pytest.raises(ImageError, match='more than 100,000,000'):
            make(image)

    def test_many_views_of_an_image_are_limited_together(self, monkeypatch):
        monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '100')
        image, views = np.zeros((2, 20, 3), np.uint8), []
        with limited_images(), pytest.raises(ImageError, match='images of 2,100 pixels, more than 2,000'):
            while True:
                views.append(cv2.resize(image, (10, 10)))
        assert len(views) == 20

    def test_it_ends_with_the_last_context(self, monkeypatch):
        monkeypatch.setenv('MMSTVIT_MAX_PIXELS', '100')
        before, image = cv2.resize, np.zeros((2, 20, 3), np.uint8)
        with limited_images():
            with limited_images():
                pass
            with pytest.raises(ImageError):
                cv2.resize(image, (20, 20))
            assert cv2.resize(image, (10, 10)).shape == (10, 10, 3) and np.zeros(1000).shape == (1000,)
            with ThreadPoolExecutor(1) as other:
                assert other.submit(np.zeros, (20, 20)).result().shape == (20, 20)
        assert cv2.resize is before and cv2.resize(image, (20, 20)).shape == (20, 20, 3)


def test_heic_is_read_with_its_package(tmp_path):
    heif = pytest.importorskip('pillow_heif')
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    smooth = PICTURE.resize((64, 48))
    heif.from_pillow(smooth).save(tmp_path / 'a.heic', exif=exif.tobytes(), quality=95)
    assert image_size(tmp_path / 'a.heic') == (48, 64)
    found = mmcv.imfrombytes(decodable((tmp_path / 'a.heic').read_bytes()), channel_order='rgb')
    expected = np.rot90(np.asarray(smooth), -1).astype(int)
    assert found.shape == (64, 48, 3) and abs(found - expected).mean() < 8


def test_heic_without_its_package_is_refused_in_words(monkeypatch):
    monkeypatch.setitem(sys.modules, 'pillow_heif', None)
    content = b'\0\0\0\x18ftypheic\0\0\0\0mif1heic'
    for read in (decodable, lambda content: open_image(io.BytesIO(content)).__enter__()):
        with pytest.raises(ImageError, match='pip install pillow-heif'):
            read(content)


class TestPages:
    @pytest.mark.parametrize(('sizes', 'expected'), [([9], False), ([9, 9], True), ([9, 5], False), ([9, 5, 9], True)])
    def test_smaller_pages_are_overviews(self, sizes, expected, tmp_path):
        first, *others = [Image.new('L', (size, size)) for size in sizes]
        first.save(tmp_path / 'a.tif', save_all=True, append_images=others)
        assert has_pages(tmp_path / 'a.tif') is expected

    def test_only_the_first_pages_are_looked_at(self, tmp_path, monkeypatch):
        pages = [Image.new('L', (1, 1)) for _ in range(200)]
        Image.new('L', (9, 9)).save(tmp_path / 'a.tif', save_all=True, append_images=pages)
        read, seek = [], TiffImagePlugin.TiffImageFile.seek
        monkeypatch.setattr(TiffImagePlugin.TiffImageFile, 'seek', lambda *args: (read.append(args), seek(*args)))
        assert not has_pages(tmp_path / 'a.tif') and 50 < len(read) <= 100
