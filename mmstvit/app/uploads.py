"""Uploaded images: read from memory, reduced if they are large, and kept for a while."""

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import cv2

from mmstvit.datasets.images import IMAGE_READER, UnreadableError
from mmstvit.drawing import resize
from mmstvit.errors import UserError

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
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        try:
            image = IMAGE_READER.decode(content)
        except UnreadableError as error:
            raise UserError(f'{name} cannot be used: {error}.', 'Use a JPEG or PNG file.') from error
        height, width = image.shape[:2]
        note = f'{width} × {height} pixels'
        if width * height > MODEL_PIXELS:
            image = resize(image, int(max(width, height) * (MODEL_PIXELS / (width * height)) ** 0.5))
            note += f', reduced to {image.shape[1]} × {image.shape[0]}'
            content = cv2.imencode('.png', image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
        path = self.folder / key
        path.write_bytes(content)
        return Upload(path, name, note)
