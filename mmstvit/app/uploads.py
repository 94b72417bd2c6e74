"""Uploaded images: read from memory, reduced if they are large, and kept for a while."""

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from mmstvit.errors import UserError
from mmstvit.fileio import PixelsError, open_image

# Pillow's name of a format -> the suffix by which OpenCV decodes it as it is.
SUFFIXES = {'JPEG': '.jpg', 'PNG': '.png', 'WEBP': '.webp', 'BMP': '.bmp'}
# Formats that become PNG: their first frame.
CONVERTED = ('GIF', 'MPO', 'TIFF', 'AVIF', 'HEIF', 'JPEG2000', 'PPM')
MODEL_PIXELS = 2 << 20  # a CPU takes minutes for more
FILES, BYTES = 64, 256 << 20  # kept at most


@dataclass(frozen=True)
class Upload:
    """An image that a model can read.

    Args:
        path: The file.
        name: Name of the file that was uploaded, for messages.
        note: Size, and what was changed.
    """

    path: Path
    name: str
    note: str


class Uploads:
    """Uploaded images by the hash of their content; the oldest are removed if there are too many.

    Args:
        folder: Folder of the files.
        max_pixels: Number of pixels of the largest image.
    """

    def __init__(self, folder: Path, max_pixels: int) -> None:
        self.folder, self.max_pixels = folder, max_pixels
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, content: bytes, name: str) -> str:
        """Keep an image, and return its key; raises UserError if it is none or too large."""
        key = hashlib.sha256(content).hexdigest()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = self._write(content, key, name)
            self._kept.move_to_end(key)
            while len(self._kept) > FILES or sum(kept.path.stat().st_size for kept in self._kept.values()) > BYTES:
                self._kept.popitem(last=False)[1].path.unlink()
        return key

    def get(self, key: str) -> Upload:
        """Return a kept image; raises UserError."""
        try:
            return self._kept[key]
        except KeyError:
            raise UserError('The image is no longer kept.', 'Choose it again.') from None

    def _write(self, content: bytes, key: str, name: str) -> Upload:
        if content[4:12] in (b'ftypheic', b'ftypheix', b'ftypmif1', b'ftyphevc'):
            _read_heif(name)
        try:
            with open_image(io.BytesIO(content)) as image:
                width, height = image.size
                if image.format not in (*SUFFIXES, *CONVERTED):
                    raise UserError(f'{name} is a file of {image.format}.', 'Use a JPEG or PNG file.')
                if width * height > self.max_pixels:
                    raise UserError(f'{name} has {width} × {height} pixels, more than {self.max_pixels:,}.')
                factor = (MODEL_PIXELS / (width * height)) ** 0.5
                note, path = f'{width} × {height} pixels', self.folder / key
                if factor >= 1 and image.format in SUFFIXES:
                    path = path.with_suffix(SUFFIXES[image.format])
                    path.write_bytes(content)
                    return Upload(path, name, note)
                if getattr(image, 'n_frames', 1) > 1 and image.format == 'GIF':
                    note += f', first of {image.n_frames} frames'
                if factor < 1:
                    image.draft('RGB', (round(width * factor), round(height * factor)))
                image = ImageOps.exif_transpose(image).convert('RGB')
                if factor < 1:
                    longest = int(max(width, height) * factor)
                    image.thumbnail((longest, longest), Image.Resampling.LANCZOS, reducing_gap=3)
                    note += f', reduced to {image.width} × {image.height}'
                path = path.with_suffix('.png')
                image.save(path, compress_level=1)
                return Upload(path, name, note)
        except PixelsError as error:
            raise UserError(f'{name} is too large: {error}.') from error
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise UserError(f'{name} is damaged, or not an image.', 'Use a JPEG or PNG file.') from error


def _read_heif(name: str) -> None:
    """Let Pillow read HEIF, the format of iPhones; raises UserError."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        remedy = 'Run: pip install pillow-heif, and start the page again; or save the photograph as JPEG.'
        raise UserError(f'{name} is a HEIC photograph, which needs the package pillow-heif.', remedy) from None
    register_heif_opener()
