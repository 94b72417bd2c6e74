"""Open checkpoints without executing code: our own reading, and that of MMEngine's loaders.

MMEngine reads a checkpoint with the loader that is registered for the scheme of its path (``''`` for local files,
``https://``, …). :func:`safe_loading` replaces these loaders for a while.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmstvit.errors import CheckpointError, prefix_errors

from .downloading import download
from .reading import read_checkpoint
from .weights import Checkpoint

Converter = Callable[[dict[str, Tensor]], dict[str, Tensor]]
_HTTP = ('http://', 'https://')


def _unchanged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights


@dataclasses.dataclass
class _Settings:
    trust: bool = False
    convert: Converter = _unchanged
    # Checkpoints that the checks before a run have read and the run will read once more, by path.
    kept: dict[str, Checkpoint] | None = None


_settings = _Settings()


def is_local(path: str) -> bool:
    """Return True for a path of the local file system, False for a URL or an object store."""
    return '://' not in path


@contextlib.contextmanager
def safe_loading(trust: bool = False, convert: Converter = _unchanged) -> Iterator[None]:
    """Replace MMEngine's checkpoint loaders with ones that execute no code; restore them at the end.

    Local files and files at http(s) addresses are read by :func:`open_checkpoint`; other schemes are refused.

    Args:
        trust: Leave MMEngine's loaders for other schemes in place, and execute the code that a checkpoint holds.
        convert: Function that renames the weights of a foreign file and returns others unchanged.
    """
    global _settings
    settings, schemes = _settings, CheckpointLoader._schemes
    _settings = _Settings(trust, convert, kept={})
    loaders = dict(schemes) if trust else dict.fromkeys(schemes, _refuse)
    loaders.update(dict.fromkeys(('', *_HTTP), load_from_file))
    # MMEngine takes the first scheme that a path begins with. Its list is private: MMEngine (tried: 0.10.12) has no
    # function that removes a loader.
    CheckpointLoader._schemes = dict(sorted(loaders.items(), reverse=True))
    try:
        yield
    finally:
        _settings, CheckpointLoader._schemes = settings, schemes


def open_checkpoint(path: str | Path, key: str | None = None, trust: bool = False, keep: bool = False) -> Checkpoint:
    """Read a checkpoint without executing code; its tensors are on the CPU.

    Inside :func:`safe_loading`, its settings hold: foreign weights are renamed, and trusted files may execute code.

    Args:
        path: File or http(s) address; other schemes are read by MMEngine's loaders, if they are trusted.
        key: Key of the weights in the file, such as ``'model_ema'``; None finds them.
        trust: Allow the file to execute code.
        keep: Keep the checkpoint in memory until the next reading of this file inside the same :func:`safe_loading`,
            which is that of MMEngine after a check.

    Raises:
        CheckpointError: The file is missing, damaged, would execute code, or has no weights.
    """
    path, trust = str(path), trust or _settings.trust
    if path.startswith(_HTTP):
        file = download(path)
    elif is_local(path):
        file = os.path.realpath(os.path.expanduser(path))
    else:
        file = path if trust else _refuse(path)
    kept = {} if _settings.kept is None else _settings.kept
    checkpoint = kept.pop(file, None)
    if checkpoint is None:
        local = is_local(file)
        content = read_checkpoint(file, trust) if local else CheckpointLoader.load_checkpoint(file, map_location='cpu')
        checkpoint = Checkpoint.from_content(path, content, key)
        with prefix_errors(path):
            checkpoint.weights = _settings.convert(checkpoint.weights)
    if keep:
        kept[file] = checkpoint
    return checkpoint


def load_from_file(filename: str, map_location: object = None) -> dict:  # MMEngine logs the name after load_from_
    """Load a checkpoint as MMEngine expects it, a dict with ``state_dict``; who uses a tensor moves it to a device."""
    checkpoint = open_checkpoint(filename)
    return {**checkpoint.entries, 'state_dict': checkpoint.weights}


def _refuse(filename: str, map_location: object = None) -> NoReturn:
    raise CheckpointError(
        f'Refusing to load {filename}: the loader of this scheme may execute the code that the file holds.',
        'Download it and name the file or its https address, or pass --trust-checkpoint if you trust the source.',
    )


def resumable_checkpoints(folders: Iterable[Path]) -> Iterator[tuple[Path, Mapping]]:
    """Yield the checkpoints of folders from which a run can be resumed, the newest first, as path and content.

    The best checkpoint and published ones have no optimizer. Unreadable files are skipped.
    """
    paths = [path for folder in folders for path in folder.glob('*.pth')]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            content = read_checkpoint(path, mmap=True)
        except CheckpointError:
            continue
        if isinstance(content, Mapping) and {'state_dict', 'optimizer'} <= content.keys():
            yield path, content
