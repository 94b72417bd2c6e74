"""Image files of a COCO annotation file: found by the paths that exporters write, and their sizes."""

import os
import posixpath
import re
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from mmstvit.fileio.image_files import entry_is, image_size, walk_folder

_DRIVE = re.compile(r'[A-Za-z]:[\\/]')
_LABEL_STUDIO = re.compile(r'[0-9a-f]{8}-(?=.)')  # before the name of an uploaded file


class ImageFolder:
    """A folder of images, listed instead of asking for each file.

    Args:
        path: The folder; None if it is unknown or not on this computer, where it has no files.
        turns: True if the pipeline applies the EXIF orientation.
    """

    def __init__(self, path: str | os.PathLike | None, turns: bool = True) -> None:
        self.turns = turns
        path = None if path is None else os.fspath(path)
        self.path = None if path is None or '://' in path else path
        self._listings: dict[str, frozenset[str]] = {}

    def has(self, name: str) -> bool:
        """Return True if a file is there under this name, as MMDetection joins folder and name."""
        parent, _, base = name.rpartition('/')
        listing = self._listings.get(parent)
        if listing is None:
            parent_path = f'{parent}/' if name.startswith('/') or self.path is None else os.path.join(self.path, parent)
            try:
                with os.scandir(parent_path or '.') as entries:  # which know what is a file, except behind links
                    listing = frozenset(entry.name for entry in entries if entry_is(entry, os.DirEntry.is_file))
            except (OSError, ValueError):  # ValueError: a zero byte or half a surrogate pair in the name
                listing = frozenset()
            self._listings[parent] = listing
        return base in listing

    def find(self, name: str) -> tuple[str, str | None]:
        """Find the file that a ``file_name`` stands for.

        Args:
            name: The name as the annotation file has it.

        Returns:
            What is wrong with the name, empty for nothing, and the name below the folder; None if it is not found.
        """
        slashed = name.replace('\\', '/')
        absolute = slashed.startswith('/') or '://' in name or _DRIVE.match(name) is not None
        if (self.path is not None or absolute) and self.has(name):
            return '', name
        if absolute:
            return 'a path of another computer', self._locate(slashed)
        found = None if self.path is None or self.has(slashed) else self._locate(slashed)
        if slashed != name:
            return 'a Windows path', found or slashed
        return ('another folder', found) if found else ('', name)

    def _locate(self, name: str) -> str | None:
        """Find the only file with the base name of a path, also without URL encoding and Label Studio's prefix."""
        paths = [name.rpartition('?d=')[2]]
        paths.append(unquote(paths[0]))
        paths += [_LABEL_STUDIO.sub('', posixpath.basename(path), count=1) for path in paths]
        for path in paths:
            same = self._by_name.get(posixpath.basename(path).lower(), [])
            exact = [other for other in same if posixpath.basename(other) == posixpath.basename(path)] or same
            ends = [other for other in exact if f'/{path}'.endswith(f'/{other}')]
            if len(exact) == 1 or len(ends) == 1:
                return exact[0] if len(exact) == 1 else ends[0]
        return None

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        """Paths below the folder by the lower case of their base names."""
        found: dict[str, list[str]] = {}
        for folder, files in walk_folder(Path(self.path)) if self.path is not None else ():
            for file in files:
                found.setdefault(file.lower(), []).append((folder / file).relative_to(self.path).as_posix())
        return found

    def size(self, name: str) -> tuple[int, int] | None:
        """Read (width, height) of an image as MMDetection decodes it; None if there is no such image."""
        return None if self.path is None else image_size(os.path.join(self.path, name), turns=self.turns)
