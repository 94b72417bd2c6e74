"""Files of images and videos: their suffixes, the folders that hold them, and the sizes of images."""

import contextlib
import functools
import io
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, ImageSequence, TiffImagePlugin

from mmstvit.errors import UserError

from .files import open_file, open_new

# What OpenCV decodes, and HEIF: see `decodable`.
IMAGE_SUFFIXES = (
    *('.avif', '.bmp', '.dib', '.gif', '.heic', '.heif', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.mpo'),
    *('.pbm', '.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff', '.webp'),
)
VIDEO_SUFFIXES = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')

# Made by operating systems, archivers, editors and network storages.
SYSTEM_NAMES = (
    *('$RECYCLE.BIN', '@eaDir', 'System Volume Information', 'Thumbs.db', '__MACOSX', '__pycache__'),
    *('desktop.ini', 'lost+found', 'vis_data'),  # the last are logs of MMEngine
)
# A file of 500 KB may be an image of 170 million pixels, whose prediction takes 8 GB.
_MOST_PIXELS = 'MMSTVIT_MAX_PIXELS', 100_000_000
_VIEWS = 20  # images of the limit that the transforms of one image may make, one after the other and as views
_MOST_PAGES = 100  # are looked at: Pillow compares the place of each one with those of all others
_LOCK = threading.Lock()  # of Pillow's limit
_MAKING = threading.RLock()  # of the functions that make images
_RESULTS = '.mmstvit-results'
_ORIENTATION, _WIDTH, _HEIGHT, _CHANNELS = 274, 256, 257, 277  # tags of EXIF and TIFF
_HEIF = (b'heic', b'heix', b'hevc', b'hevx', b'heim', b'heis', b'mif1', b'msf1')  # brands
_EXCHANGED = (5, 6, 7, 8)  # orientations that exchange width and height
# Formats whose orientation OpenCV applies (tried: 4.12); Pillow's is applied to all.
_TURNED_BY_OPENCV = ('JPEG', 'MPO', 'PNG', 'TIFF')


def mark_results(folder: Path) -> None:
    """Make a folder for results, and mark it: :func:`walk_folder` does not take results for data."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_new(folder / _RESULTS) as file:
        file.write(b'Results of mmstvit. Our tools do not read this folder as data.\n')


def walk_folder(
    root: Path, _above: frozenset[str] = frozenset(), _behind_link: set[str] | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and all folders below it, each with the sorted names of its files.

    Links to folders are followed, except to a folder that contains the link, such as ``/``; behind a link, every folder
    is visited once. Left out are hidden files, those of operating systems and archivers, logs and results of our
    tools, and what cannot be read.
    """
    real = os.path.realpath(root)
    if real in _above or (_behind_link is not None and real in _behind_link):
        return
    if _behind_link is not None:
        _behind_link.add(real)
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError:
        return
    entries = [entry for entry in entries if not entry.name.startswith('.') and entry.name not in SYSTEM_NAMES]
    yield root, [entry.name for entry in entries if entry_is(entry, os.DirEntry.is_file)]
    above = _above.union([real], map(str, Path(real).parents))
    for entry in entries:
        if entry_is(entry, os.DirEntry.is_dir) and not os.path.exists(os.path.join(entry.path, _RESULTS)):
            behind = set() if entry.is_symlink() and _behind_link is None else _behind_link
            yield from walk_folder(root / entry.name, above, behind)


def entry_is(entry: os.DirEntry, kind: Callable[[os.DirEntry], bool]) -> bool:
    """Return True if an entry is of a kind, False also if the target of a link may not be seen."""
    try:
        return kind(entry)
    except OSError:
        return False


class ImageError(ValueError):
    """An image is not read: it has more pixels than the limit, or the package for its format is not installed."""


def check_pixels(width: float, height: float, layers: float = 3) -> None:
    """Check that an image or frame has no more pixels than the limit: 100 million, or ``MMSTVIT_MAX_PIXELS``.

    Args:
        width: Width of the image.
        height: Height of the image.
        layers: Channels of all pages; each three above the first three count as another image.

    Raises:
        ImageError: It has more; the message says how to raise the limit.
        UserError: The environment variable is not a number.
    """
    many = f' in {layers:.0f} channels of all pages' if layers > 3 else ''
    _check_limit(width * height * max(layers / 3, 1), f'the image has {width:.0f} × {height:.0f} pixels{many}')


def _check_limit(pixels: float, problem: str, images: int = 1) -> None:
    """Check that several images together have no more pixels than that many images of the limit."""
    name, default = _MOST_PIXELS
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UserError(f'{name} must be a number of pixels, but is {text!r}.')
    if pixels > images * int(text):
        raise ImageError(
            f'{problem}, more than {images * int(text):,}. If you trust it, set the environment variable {name}'
        )


def _array_size(shape: object = (), *_: object, **__: object) -> tuple[int, int]:
    return tuple(shape[:2])[::-1] if isinstance(shape, (tuple, list)) and len(shape) > 1 else (1, 1)


# What makes images of other sizes in the transforms of MMCV and the libraries -> the size that a call asks for. The
# arguments have the names that callers may use.
_MAKERS: dict[tuple[object, str], Callable[..., tuple[float, float]]] = {
    (Image.Image, 'resize'): lambda self, size, *_, **__: size,
    (cv2, 'resize'): lambda src, dsize=None, dst=None, fx=0, fy=0, *_, **__: (
        dsize or (src.shape[1] * fx, src.shape[0] * fy)
    ),
    (cv2, 'warpAffine'): lambda src, M, dsize, *_, **__: dsize,
    (cv2, 'warpPerspective'): lambda src, M, dsize, *_, **__: dsize,
    (cv2, 'copyMakeBorder'): lambda src, top, bottom, left, right, *_, **__: (
        src.shape[1] + left + right,
        src.shape[0] + top + bottom,
    ),
    **{(np, name): _array_size for name in ('empty', 'full', 'ones', 'zeros')},
}


@contextlib.contextmanager
def limited_images() -> Iterator[None]:
    """Let this thread make no image beyond the limit of pixels, and not many of them, whatever transform asks for it.

    How large a transform makes an image often depends on the image: the short side of one with 20 × 100,000 pixels,
    enlarged to 256, makes 328 million. No setting shows it, and after the transform the memory is taken: only the
    functions that make an image know its size before. So they are replaced meanwhile; other threads do not notice.
    Transforms of torchvision use others, and are refused by :func:`mmstvit.fileio.check_config`.

    Raises:
        ImageError: From the call that would make the image, before it takes memory.
    """
    thread, made = threading.get_ident(), 0

    def limited(make: Callable, size: Callable[..., tuple[float, float]]) -> Callable:
        @functools.wraps(make)
        def checked(*args: object, **kwargs: object) -> object:
            nonlocal made
            if threading.get_ident() == thread:
                width, height = size(*args, **kwargs)
                check_pixels(width, height)
                made += width * height
                _check_limit(made, f'its transforms make images of {made:,.0f} pixels', _VIEWS)
            return make(*args, **kwargs)

        return checked

    with _MAKING, contextlib.ExitStack() as stack:
        for (owner, name), size in _MAKERS.items():
            make = getattr(owner, name)
            stack.callback(setattr, owner, name, make)
            setattr(owner, name, limited(make, size))
        yield


@contextlib.contextmanager
def open_image(source: str | Path | BinaryIO) -> Iterator[Image.Image]:
    """Open an image with Pillow, which decodes it when its pixels are used.

    Raises:
        ImageError: It has too many pixels, or needs the package pillow-heif.
        OSError, SyntaxError, ValueError: It cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open_file(source)) if isinstance(source, (str, Path)) else source
        if _is_heif(file):
            _register_heif()
        with _LOCK:
            limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # Pillow's limit, in place of ours
            try:
                image = stack.enter_context(Image.open(file))
            finally:
                Image.MAX_IMAGE_PIXELS = limit
        check_pixels(*image.size)
        yield image


def _is_heif(file: BinaryIO) -> bool:
    """Return True for a file of HEIF, the format of iPhones; AVIF has the same container."""
    head = file.read(32)
    file.seek(0)
    return head[4:8] == b'ftyp' and head[8:12] in _HEIF and b'avif' not in head


def _register_heif() -> None:
    """Let Pillow read HEIF; raises ImageError."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise ImageError('HEIC needs the package pillow-heif. Run: pip install pillow-heif') from error
    register_heif_opener()


def decodable(content: bytes) -> bytes:
    """Return the content of an image file as OpenCV decodes it: HEIF becomes BMP, turned as it is shown.

    Raises:
        ImageError, OSError, SyntaxError, ValueError: See :func:`open_image`; only for HEIF.
    """
    if not _is_heif(io.BytesIO(content)):
        return content
    with open_image(io.BytesIO(content)) as image:
        image.convert('RGB').save(stream := io.BytesIO(), 'BMP')
    return stream.getvalue()


def image_size(path: str | Path, backend: str = 'cv2', turns: bool = True) -> tuple[int, int] | None:
    """Read the size of an image from its header, as a pipeline sees it.

    Args:
        path: The file.
        backend: Decoder of the pipeline, as in ``LoadImageFromFile``.
        turns: True if the pipeline applies the EXIF orientation: ``color_type`` is not ``'unchanged'``.

    Returns:
        (width, height); None if the file cannot be read as an image.
    """
    try:
        with open_image(path) as image:
            size, kind, orientation = image.size, image.format, None
            if kind == 'TIFF':  # Pillow (tried: 12.3) exchanges the sides itself
                size, turns = (image.tag_v2[_WIDTH], image.tag_v2[_HEIGHT]), True  # also of `unchanged`
            # Only Pillow reads an orientation from XMP. Of a PNG without EXIF, its getexif decodes the image.
            if backend == 'pillow' or kind == 'TIFF' or 'exif' in image.info or (kind == 'PNG' and _has_exif(path)):
                orientation = image.getexif().get(_ORIENTATION)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
    turned = turns and orientation in _EXCHANGED and (backend == 'pillow' or kind in _TURNED_BY_OPENCV)
    return size[::-1] if turned else size


def check_header(file: BinaryIO, decoder: str | None = None) -> None:
    """Check before an image is decoded that its size stands in its header, and is within the limit.

    Decoders know formats, and kinds of TIFF such as floating-point colors, that Pillow does not open. Of TIFF, the size
    is read from the tags; what has another unknown header is refused, as nobody knows how much memory it takes.

    Args:
        file: The file.
        decoder: Decoder of the pipeline, as in ``LoadImageFromFile``; tifffile decodes all pages.

    Raises:
        ImageError: It has too many pixels, or needs the package pillow-heif.
        ValueError: Its size cannot be read.
    """
    if decoder == 'tifffile':
        check_pixels(*_series_size(file))
        return
    try:
        with open_image(file):
            return
    except ImageError:
        raise
    except Exception as error:  # Pillow's readers raise errors of many types
        file.seek(0)
        size = _tiff_size(file)
        if size is None:
            raise ValueError('its size cannot be read from its header: it is damaged, or of another format') from error
    check_pixels(*size)


def _series_size(file: BinaryIO) -> tuple[int, int, float]:
    """Return width, height, and channels of all pages of what tifffile decodes; raises ValueError."""
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            series, page = tiff.series[0], tiff.series[0].keyframe
            return page.imagewidth, page.imagelength, series.size / (page.imagewidth * page.imagelength)
    except Exception as error:  # of any type, as the file may be damaged
        raise ValueError(f'it is not a TIFF file that tifffile reads ({error})') from error


def has_pages(path: str | Path) -> bool:
    """Return True for a TIFF file with several pages of the size of the first one; smaller ones are overviews."""
    if not str(path).lower().endswith(('.tif', '.tiff')):
        return False
    try:
        with open_image(path) as image:
            size = image.size
            pages = itertools.islice(ImageSequence.Iterator(image), _MOST_PAGES)
            return sum(page.size == size for page in pages) > 1
    except Exception:  # Pillow's readers raise errors of many types
        return False


def _tiff_size(file: BinaryIO) -> tuple[int, int, int] | None:
    """Read width, height and channels of the first image of a TIFF file from its tags; None for other files."""
    tags = read_tiff_tags(file)
    try:
        return int(tags[_WIDTH]), int(tags[_HEIGHT]), int(tags.get(_CHANNELS, 1))
    except (KeyError, TypeError, ValueError):
        return None


def read_tiff_tags(file: BinaryIO) -> Mapping[int, object]:
    """Read the tags of the first image of a TIFF file, by number; empty for another or damaged file."""
    try:
        head = file.read(8)
        tags = TiffImagePlugin.ImageFileDirectory_v2(head + file.read(8) if head[2:3] == b'+' else head)
        file.seek(tags.next)
        tags.load(file)
        return dict(tags)
    except Exception:  # not TIFF, or damaged
        return {}


def _has_exif(path: str | Path) -> bool:
    """Return True if a PNG file has a chunk with EXIF, which may stand behind the pixels."""
    with open_file(path) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b'eXIf':
                return True
            file.seek(int.from_bytes(head[:4], 'big') + 4, os.SEEK_CUR)
    return False
