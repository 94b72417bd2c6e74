"""Files of images: read, decoded, and found out when they are not whole.

Some decoders, among them older versions of OpenCV, take a JPEG that is cut short and leave the rest of the image gray.
The files themselves tell: a JPEG and a PNG have a mark at their end.
"""

import os
import re
import struct
import zlib

import cv2
import mmcv
import numpy as np
from mmengine import fileio
from PIL import Image

_JPEG = b'\xff\xd8\xff'
_PNG = b'\x89PNG\r\n\x1a\n'
_JPEG_END = b'\xff\xd9'
_PNG_END = b'IEND\xaeB`\x82'
# A marker, the last byte of which is none of those that occur inside the compressed data.
_JPEG_MARKER = re.compile(rb'\xff+([^\x00\xd0-\xd7\xff])', re.DOTALL)
_END_OF_IMAGE = 0xD9
_WITHOUT_LENGTH = (0x01, 0xD8)

# What the decoders behind mmcv raise for content that they do not understand.
_DECODER_ERRORS = (
    AttributeError,
    EOFError,
    IndexError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    Image.DecompressionBombError,
    cv2.error,
    struct.error,
    zlib.error,
)


class UnreadableError(ValueError):
    """A file cannot be read or decoded; the message is the reason, without the path."""


def read_bytes(path: str, backend_args: dict | None = None) -> bytes:
    """The content of a file of any of MMEngine's backends.

    Raises:
        UnreadableError: The file is not there, or cannot be read.
    """
    try:
        return fileio.get(path, backend_args=backend_args)
    except FileNotFoundError as error:
        raise UnreadableError('it does not exist') from error
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error


def decode(content: bytes, flag: str, backend: str | None) -> np.ndarray:
    """Decode a whole image, as mmcv does.

    Args:
        content: The file.
        flag: ``'color'``, ``'grayscale'``, ``'unchanged'``: the ``color_type`` of ``LoadImageFromFile``.
        backend: ``'cv2'``, ``'pillow'`` and so on; None is mmcv's default.

    Returns:
        (H, W, 3) in the order blue, green, red; (H, W) for one channel.

    Raises:
        UnreadableError: It is empty, cut short, or no image that the backend knows.
    """
    reason = damage(content)
    if reason:
        raise UnreadableError(reason)
    try:
        array = mmcv.imfrombytes(content, flag=flag, backend=backend)
    except _DECODER_ERRORS as error:
        text = (str(error).splitlines() or [''])[0]
        raise UnreadableError(f'it cannot be decoded ({type(error).__name__}: {text})') from error
    if array is None:  # OpenCV's word for it
        raise UnreadableError('it cannot be decoded: no image, or a damaged one')
    return array


def damage(content: bytes) -> str | None:
    """What can be told of a file without decoding it: that it is empty, something else, or not whole; else None."""
    if not content:
        return 'it is empty (0 bytes)'
    start = content[:64].lstrip().lower()
    if start.startswith((b'<!doctype html', b'<html')):
        return 'it is a web page, as a failed download leaves it'
    if start.startswith(b'version https://git-lfs'):
        return 'it is a pointer of Git LFS; fetch the file with: git lfs pull'
    if content.startswith(_JPEG) and not content.endswith(_JPEG_END) and not _jpeg_is_whole(content):
        return 'it is cut short: a JPEG without an end'
    if content.startswith(_PNG) and _PNG_END not in content:
        return 'it is cut short: a PNG without an end'
    return None


def _jpeg_is_whole(content: bytes) -> bool:
    """Whether the end of the image is there; that of a thumbnail, which is inside a segment, does not count."""
    position = len(_JPEG_END)
    while match := _JPEG_MARKER.search(content, position):
        marker, position = match[1][0], match.end()
        if marker == _END_OF_IMAGE:
            return True
        if marker not in _WITHOUT_LENGTH:
            position += int.from_bytes(content[position : position + 2], 'big')
    return False


def cut_short(path: str) -> bool:
    """Whether a local file, which a decoder has accepted, is not whole; two small reads if it is."""
    with open(path, 'rb', buffering=0) as file:
        start = file.read(len(_PNG))
        end = _JPEG_END if start.startswith(_JPEG) else _PNG_END if start == _PNG else b''
        file.seek(-len(end), os.SEEK_END)
        if file.read() == end:
            return False
        file.seek(0)
        return damage(file.read()) is not None
