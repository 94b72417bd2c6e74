"""Read image files as a pipeline reads them, and recognize unreadable ones.

Some decoders, among them older versions of OpenCV, accept a truncated JPEG and fill the rest of the image with gray.
The file itself shows it: JPEG and PNG have an end marker.
"""

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine import fileio
from mmengine.fileio import LocalBackend, register_backend

from mmstvit.dependencies import LIBRARIES
from mmstvit.errors import one_line
from mmstvit.fileio import (
    ImageError,
    check_header,
    decodable,
    find_placeholder,
    image_size,
    is_local,
    read_file,
    read_tiff_tags,
)

_JPEG = b'\xff\xd8\xff'
_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG_END = b'\xff\xd9'
_PNG_END = b'IEND\xaeB`\x82'
_BITS, _CHANNELS, _FORMAT = 258, 277, 339  # tags of TIFF
# A marker outside the compressed data: its last byte does not occur after 0xFF inside.
_JPEG_MARKER = re.compile(rb'\xff+([^\x00\xd0-\xd7\xff])', re.DOTALL)
_END_OF_IMAGE = 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)

_CHECKED = 'mmstvit.checked'  # name of the file backend
# The reason for a file that is not there.
MISSING = 'the file does not exist'


class UnreadableError(ValueError):
    """A file cannot be read or decoded; the message is the reason, without the path."""


@dataclass(frozen=True)
class Reader:
    """The way a pipeline reads an image or a segmentation map.

    Args:
        key: Key of the path in a sample: ``'img_path'`` or ``'seg_map_path'``.
        color_type: ``'color'``, ``'grayscale'`` or ``'unchanged'``, as in ``LoadImageFromFile``.
        backend: Decoder: ``'cv2'``, ``'pillow'``, …; None is mmcv's default.
        backend_args: Arguments of MMEngine's file backend; None is the local file system.
    """

    key: str
    color_type: str
    backend: str | None
    backend_args: dict | None = None

    @property
    def turns(self) -> bool:
        """True if decoding applies the EXIF orientation."""
        return self.color_type in ('color', 'grayscale')

    def read_bytes(self, path: str) -> bytes:
        """Read a file.

        Raises:
            UnreadableError: The file does not exist or cannot be read.
        """
        try:
            if self.backend_args in (None, {'backend': 'local'}) and is_local(path):
                return read_file(path)
            return fileio.get(path, backend_args=self.backend_args)
        except FileNotFoundError as error:
            raise UnreadableError(MISSING) from error
        except OSError as error:
            raise UnreadableError(error.strerror or str(error)) from error

    def decode(self, content: bytes) -> np.ndarray:
        """Decode a file's content as mmcv does.

        Returns:
            (H, W, 3) in the order blue, green, red; (H, W) for one channel.

        Raises:
            UnreadableError: The content is empty, truncated, or not an image that the backend knows.
        """
        if reason := find_damage(content, self.backend):
            raise UnreadableError(reason)
        try:
            array = mmcv.imfrombytes(decodable(content), flag=self.color_type, backend=self.backend)
        except Exception as error:  # decoders raise all kinds of errors
            text = (str(error).splitlines() or [''])[0]
            raise UnreadableError(f'the file cannot be decoded ({type(error).__name__}: {text})') from error
        if array is None:  # OpenCV does not raise
            raise UnreadableError(f'the file cannot be decoded: {_describe_kind(content)}')
        return array

    def read(self, path: str) -> np.ndarray:
        """Read and decode a file; raises UnreadableError."""
        return self.decode(self.read_bytes(path))

    def find_fault(self, path: str | Path) -> str:
        """Return the reason why a file cannot be read; an empty string if it can."""
        try:
            self.read(str(path))
        except UnreadableError as error:
            return str(error)
        return ''

    def size(self, path: str) -> tuple[int, int] | None:
        """Read (width, height) of a local file, as it is decoded, from its header; None if it cannot be read."""
        return image_size(path, self.backend or 'cv2', self.turns)


@register_backend(_CHECKED, force=True)
class CheckedBackend(LocalBackend):
    """MMEngine's backend for local files, which refuses files that cannot be images.

    A decoder may accept a truncated file. Here the content is checked on its way to the decoder, so that no file is
    read twice.

    Args:
        decoder: Decoder of the pipeline, as in ``LoadImageFromFile``.
    """

    def __init__(self, decoder: str | None = None) -> None:
        self.decoder = decoder

    def get(self, filepath: str | os.PathLike) -> bytes:
        """Read a file.

        Raises:
            UnreadableError: The file is empty, truncated or of another kind.
        """
        if not is_local(str(filepath)):
            return fileio.get(filepath)
        content = read_file(filepath)
        if reason := find_damage(content, self.decoder):
            raise UnreadableError(reason)
        return decodable(content)


def refuse_damaged_files(pipeline: object) -> None:
    """Let the loaders of a pipeline that read local files raise UnreadableError; see :class:`CheckedBackend`."""
    for loader in find_loaders(pipeline):
        if _backend_args(loader) in (None, {'backend': 'local'}):
            loader.file_client_args, loader.backend_args = None, dict(backend=_CHECKED, decoder=loader.imdecode_backend)


IMAGE_READER = Reader('img_path', 'color', 'cv2')
MAP_READER = Reader('seg_map_path', 'unchanged', 'pillow')


def find_loaders(node: object) -> Iterator[LoadImageFromFile | LoadAnnotations]:
    """Find the transforms of a pipeline that load images or annotations, also inside other transforms."""
    if isinstance(node, (LoadImageFromFile, LoadAnnotations)):
        yield node
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from find_loaders(part)
    else:
        for name in ('transforms', 'subroutines'):  # Compose, RandomChoice, …; TestTimeAug
            yield from find_loaders(getattr(node, name, ()))


def find_readers(pipeline: object) -> list[Reader]:
    """Find how a pipeline reads files."""
    readers = []
    for loader in find_loaders(pipeline):
        backend_args = _backend_args(loader)
        if isinstance(loader, LoadImageFromFile):
            readers.append(Reader('img_path', loader.color_type, loader.imdecode_backend, backend_args))
        elif loader.with_seg:
            readers.append(Reader('seg_map_path', 'unchanged', loader.imdecode_backend, backend_args))
    return readers


def _backend_args(loader: LoadImageFromFile | LoadAnnotations) -> dict | None:
    """Return the arguments of a loader's file backend, also those under their old name (mmcv 2.3)."""
    old = getattr(loader, 'file_client_args', None)
    if old is None:
        return loader.backend_args
    return {**old, 'backend': 'local'} if old.get('backend', 'disk') == 'disk' else old


def may_read_keys(pipeline: object) -> bool:
    """Return True if a loader of the user's own may take ``img_path`` for a key, such as of a file in an archive."""
    return any(
        type(loader).transform.__module__.partition('.')[0] not in ('mmcv', *LIBRARIES)
        for loader in find_loaders(pipeline)
    )


def find_damage(content: bytes, decoder: str | None = None) -> str | None:
    """Find a reason, without decoding, why a file cannot be an image: empty, another format or truncated.

    Args:
        content: Content of the file.
        decoder: Decoder of the pipeline, as in ``LoadImageFromFile``.
    """
    if not content:
        return 'the file is empty (0 bytes)'
    if placeholder := find_placeholder(content[:64]):
        return f'the file is {placeholder[0]}. {placeholder[1]}'
    if content.startswith(_JPEG) and not content.endswith(_JPEG_END) and not _has_jpeg_end(content):
        return 'the file is truncated (JPEG without end marker)'
    if content.startswith(_PNG) and _PNG_END not in content:
        return 'the file is truncated (PNG without end marker)'
    if content.startswith(_PNG) and any(name != one_line(name) for name in _profile_names(content)):
        return 'the name of its color profile has control characters'  # which libpng writes to the terminal
    try:
        check_header(io.BytesIO(content), decoder)
    except ImageError as error:
        return str(error)
    except ValueError as error:
        return f'the file cannot be decoded: {error}'
    return None


def _describe_kind(content: bytes) -> str:
    """Say why OpenCV does not decode a file."""
    tags = read_tiff_tags(io.BytesIO(content))
    channels, bits = tags.get(_CHANNELS, 1), max(tags.get(_BITS, (1,)))
    if channels > 4:
        kind = f'{channels} channels'
    elif bits > 16:
        kind = f'{bits}-bit {"floating-point " * (3 in tags.get(_FORMAT, ()))}numbers'
    else:
        return 'it is damaged or not an image'
    return f'OpenCV does not read TIFF files of {kind}. Save it with at most 4 channels of 8 or 16 bits'


def _profile_names(content: bytes) -> Iterator[str]:
    """Read the names of color profiles in a PNG file."""
    position = len(_PNG)
    while (kind := content[position + 4 : position + 8]).isalpha():
        if kind == b'iCCP':
            yield content[position + 8 : position + 88].partition(b'\0')[0].decode('latin-1')
        position += 12 + int.from_bytes(content[position : position + 4], 'big')


def _has_jpeg_end(content: bytes) -> bool:
    """Return True if the end marker of the image is there; that of a thumbnail inside a segment does not count."""
    position = len(_JPEG_END)
    while match := _JPEG_MARKER.search(content, position):
        marker, position = match[1][0], match.end()
        if marker == _END_OF_IMAGE:
            return True
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(content[position : position + 2], 'big')
    return False
