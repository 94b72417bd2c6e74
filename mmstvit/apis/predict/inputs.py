"""Images and videos that a command names: files, folders and glob patterns."""

import contextlib
import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from mmstvit.datasets.images import MISSING, UnreadableError
from mmstvit.fileio import IMAGE_SUFFIXES, VIDEO_SUFFIXES, ImageError, check_pixels, walk_folder


@dataclass(frozen=True)
class Source:
    """An image or video.

    Args:
        path: The file.
        name: Path below the folder that all inputs share, with ``/``.
        stem: The name without its suffix, or with it if two names differ in the suffix only.
    """

    path: Path
    name: str
    stem: str

    @property
    def is_video(self) -> bool:
        """True for a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES


@dataclass
class InputFiles:
    """Images and videos for a prediction.

    Args:
        sources: Images and videos, each once.
        faults: Reasons by input, of inputs without any.
        ignored: Number of other files in folders, by suffix.
        root: The folder that all inputs share.
    """

    sources: list[Source] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)
    ignored: Counter = field(default_factory=Counter)
    root: str = ''


def find_inputs(inputs: Sequence[str | Path]) -> InputFiles:
    """Find the images and videos of files, folders (with all folders below) and glob patterns."""
    result = InputFiles()
    roots: dict[Path, Path] = {}  # file -> the folder that was named, or the one in which it is
    for text in map(str, inputs):
        root, files = _resolve(text, result.ignored)
        if not files:
            result.faults[text] = 'no image found'
        for file in files:
            roots.setdefault(file, root)
    if not roots:
        return result
    result.root = os.path.commonpath(roots.values())
    names = {file: file.relative_to(result.root) for file in roots}
    # Compared in lower case: not every file system tells them apart. `a.jpg` is the name of an image, too, beside the
    # stem of `a.jpg.png`.
    taken = Counter(str(part).lower() for name in names.values() for part in (name, name.with_suffix('')))
    for file, name in names.items():
        stem = name.with_suffix('') if taken[str(name.with_suffix('')).lower()] == 1 else name
        result.sources.append(Source(file, name.as_posix(), stem.as_posix()))
    return result


def _resolve(text: str, ignored: Counter) -> tuple[Path, list[Path]]:
    """Return the folder and the files that one input stands for."""
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.is_dir():
        return path, _list_folder(path, ignored)
    if path.exists() or not glob.has_magic(text):
        return path.parent, [path]
    fixed = next(parent for parent in path.parents if not glob.has_magic(str(parent)))
    matches = map(Path, sorted(_expand(str(path))))
    return fixed, [file for match in matches for file in (_list_folder(match, ignored) if match.is_dir() else [match])]


def _expand(pattern: str) -> Iterator[str]:
    """Yield the matches of a glob pattern; glob's own ``**`` follows links that form a loop without an end."""
    start, recursive, rest = pattern.partition('/**/')
    if not recursive:
        yield from glob.glob(pattern)
        return
    for folder in (folder for base in glob.glob(start) for folder, _ in walk_folder(Path(base))):
        yield from _expand(f'{glob.escape(str(folder))}/{rest}')


def _list_folder(folder: Path, ignored: Counter) -> list[Path]:
    """List the images below a folder, and count its other files."""
    files = [folder / name for folder, names in walk_folder(folder) for name in names]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    ignored.update(file.suffix.lower() or file.name for file in files if file.suffix.lower() not in IMAGE_SUFFIXES)
    return sorted(images)


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Decode the frames of a video, (H, W, 3) in the order blue, green, red; raises UnreadableError without any."""
    with _open_video(path) as capture:
        done, frame = capture.read()
        if not done:
            raise UnreadableError('no frame of this video can be decoded')
        while done:
            yield frame
            done, frame = capture.read()


def video_property(path: Path, name: int) -> float:
    """Return a property of a video, such as ``cv2.CAP_PROP_FPS``; 0 if it is unknown. Raises UnreadableError."""
    with _open_video(path) as capture:
        return max(capture.get(name), 0)


@contextlib.contextmanager
def _open_video(path: Path) -> Iterator[cv2.VideoCapture]:
    if not path.is_file():
        raise UnreadableError('it is not a file' if path.exists() else MISSING)
    try:
        name = str(path)
        name.encode()
    except UnicodeEncodeError:  # OpenCV 4.12 dies
        raise UnreadableError('the name of a video must be UTF-8') from None
    capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    try:
        check_pixels(capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
        yield capture
    except ImageError as error:
        raise UnreadableError(str(error)) from error
    finally:
        capture.release()
