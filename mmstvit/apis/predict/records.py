"""Records of a folder of results: what was predicted, and which files were written for it.

A line of JSON is appended after each image or frame. The results are written from these lines in the end, in the order
of the inputs; a run that ended early, even by a kill, goes on from them. Each process has a file of its own.
"""

import contextlib
import itertools
import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from mmstvit.datasets.images import UnreadableError
from mmstvit.engine.runner.processes import LOCK, lock_work_dir
from mmstvit.errors import UserError
from mmstvit.fileio import mark_results, open_file, open_new, partial_path

_NAME = '.mmstvit-records'
# Where results are.
_FOLDERS = ('pictures', 'maps')
_FILES = ('predictions.json', 'predictions.csv', 'legend.csv')


def check_out_dir(folder: Path) -> None:
    """Check that a folder for results is new or empty; raises UserError."""
    if folder.exists() and not (folder.is_dir() and all(path.name == LOCK for path in folder.iterdir())):
        raise UserError(
            f'{folder} exists and is not an empty folder.', 'Name another one with --out-dir, or remove it.'
        )


class Records:
    """Records of what was predicted; read them first. The first process locks the folder until they are closed.

    Args:
        folder: The folder of the results; new, empty, or one with records.
        settings: Settings that a run must have in common with the one that it continues.
        rank: Number of the process.

    Attributes:
        found: True if the folder holds results.
        files: Files of results in the folder, with the names of their inputs.
        done: Names of the inputs that are complete, with the frames of each that were skipped and the reasons.

    Raises:
        UserError: The folder has other files, or another run predicts into it.
    """

    def __init__(self, folder: Path, settings: Mapping, rank: int = 0) -> None:
        self.folder, self._settings = folder, json.loads(json.dumps(settings, default=str))
        self._path = folder / f'{_NAME}.{rank}'
        self._stream: BinaryIO | None = None
        if not any(folder.glob(f'{_NAME}.*')):
            check_out_dir(folder)
        self._new = [path for path in (folder, *folder.parents) if not path.exists()]
        self._lock = lock_work_dir(str(folder), option='--out-dir') if rank == 0 else None

    @property
    def count(self) -> int:
        """Number of images and frames that were predicted."""
        return sum(map(len, self._places.values()))

    def read(self) -> None:
        """Read the records of all processes; raises UserError if they are damaged. A last line may be cut off."""
        self.files: dict[str, str] = {}
        self.done: dict[str, dict[str, str]] = {}
        self._places: dict[str, list[tuple[Path, int]]] = {}
        self._earlier: dict = {}
        paths = sorted(self.folder.glob(f'{_NAME}.*'))
        self.found = bool(paths)
        for path in paths:
            try:
                self._read(path)
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise UserError(
                    f'{path} is damaged ({type(error).__name__}).', 'Remove the folder, or name another one.'
                ) from error

    def _read(self, path: Path) -> None:
        offset = 0
        with open_file(path) as file:
            for line in file:
                if not line.endswith(b'\n'):
                    return
                entry = json.loads(line)
                if 'settings' in entry:
                    self._earlier = dict(entry['settings'])
                elif 'files' in entry:
                    if not all(isinstance(name, str) and name for name in entry['files']):
                        raise ValueError
                    self.files.update(dict.fromkeys(entry['files'], entry['source']))
                elif 'result' in entry:
                    if not isinstance(entry['result'], dict):
                        raise ValueError
                    self._places.setdefault(entry['source'], []).append((path, offset))
                else:
                    self.done[entry['source']] = {str(frame): str(reason) for frame, reason in entry['done'].items()}
                offset += len(line)

    def check_settings(self) -> None:
        """Check that the settings are those of the records that were found; raises UserError."""
        keys = [key for key, value in self._settings.items() if self._earlier.get(key) != value]
        if keys:
            raise UserError(
                f'--continue needs the settings with which {self.folder} was begun; these differ: {", ".join(keys)}.',
                'Repeat that command with --continue, or begin anew with --force.',
            )

    def keep_done(self) -> None:
        """Keep the inputs that are complete, in the file of this process; what else was written will be replaced."""
        entries = [(source, places) for source, places in self._places.items() if source in self.done]
        partial = partial_path(self._path)
        with open_new(partial) as self._stream:
            self._append(settings=self._settings)
            for file, source in self.files.items():
                self._append(source=source, files=[file])
            for source, places in entries:
                for result in _read_results(places):
                    self._append(source=source, result=result)
                self.finish(source, self.done[source])
        self._stream = None
        partial.replace(self._path)
        for path in self.folder.glob(f'{_NAME}.*'):
            if path != self._path:
                path.unlink()

    def remove(self) -> None:
        """Remove the results that were found, and no other file."""
        try:
            for name in self.files:
                self._remove_result(name)
        except (OSError, ValueError) as error:
            raise UserError(
                f'{name!r:.200}, which the records in {self.folder} name, cannot be removed ({type(error).__name__}).',
                'Remove the folder, or name another one with --out-dir.',
            ) from error
        for path in self.folder.glob(f'{_NAME}.*'):
            path.unlink()
        self.read()

    def _remove_result(self, name: str) -> None:
        """Remove a result and the folders that it leaves empty. The records may come from anybody: nothing outside."""
        parts = PurePosixPath(name).parts
        if name in _FILES or (parts[0] in _FOLDERS and not self._leads_elsewhere(str(PurePosixPath(*parts[:-1])))):
            (self.folder / name).unlink(missing_ok=True)
            for parent in (self.folder.joinpath(*parts[:i]) for i in range(len(parts) - 1, 0, -1)):
                with contextlib.suppress(OSError):  # it holds other files
                    parent.rmdir()

    def claim(self, source: str, files: Iterable[str]) -> None:
        """Note that files will be written for an input; raises UnreadableError if one exists that is not of it."""
        for file in files:
            if self._leads_elsewhere(file) or (os.path.lexists(self.folder / file) and self.files.get(file) != source):
                raise UnreadableError(f'{self.folder / file} exists, and is not a result of it')
        self._append(source=source, files=[*files])

    def _leads_elsewhere(self, name: str) -> bool:
        """Return True if a name in the folder is that of another place: through a link, or with ``..``."""
        return (self.folder / name).resolve() != self.folder.resolve() / name

    def add(self, source: str, result: Mapping) -> None:
        """Add the prediction of an image or frame."""
        self._append(source=source, result=result)

    def finish(self, source: str, skipped: Mapping[str, str]) -> None:
        """Note that an input is complete, without the frames that were skipped."""
        self._append(source=source, done=dict(skipped))

    def _append(self, **entry: object) -> None:
        if self._stream is None:
            mark_results(self.folder)
            self._stream = open(self._path, 'ab')  # noqa: SIM115
            self._append(settings=self._settings)
        self._stream.write(json.dumps(entry).encode() + b'\n')
        self._stream.flush()

    def results(self, names: Iterable[str]) -> Iterator[dict]:
        """Yield the predictions in the order of the names of inputs; those of other inputs follow."""
        for name in dict.fromkeys([*names, *self._places]):
            yield from _read_results(self._places.get(name, ()))

    def close(self) -> None:
        """Close the file, and unlock the folder; a new one without results is removed."""
        if self._stream is not None:
            with contextlib.suppress(OSError):  # a line that could not be written is tried again
                self._stream.close()
            self._stream = None
        if self._lock is not None:
            for remove, path in ((os.unlink, self._lock.name), *((os.rmdir, folder) for folder in self._new)):
                with contextlib.suppress(OSError):  # it has results, or somebody has removed it
                    remove(path)
            self._lock.close()


def _read_results(places: Iterable[tuple[Path, int]]) -> Iterator[dict]:
    for path, group in itertools.groupby(places, operator.itemgetter(0)):
        with open_file(path) as file:
            for _, offset in group:
                file.seek(offset)
                yield json.loads(file.readline())['result']
