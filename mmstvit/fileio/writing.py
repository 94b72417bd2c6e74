"""Write files atomically, and checkpoints that load without executing code."""

import errno
import hashlib
import io
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmstvit.compat import unpickling_reason
from mmstvit.errors import CheckpointError

from .files import open_new, partial_path
from .pickles import only_safe_globals
from .weights import Checkpoint


def check_target(target: Path, source: Path, force: bool = False) -> None:
    """Check that a file may be written, before any work is done.

    Args:
        target: The file to write.
        source: The file that it is made from, which is never overwritten.
        force: Allow another existing file to be overwritten.

    Raises:
        CheckpointError: The target exists, is a folder, or has the suffix of another format.
    """
    if target.is_dir():
        raise CheckpointError(f'{target} is a folder.', f'Name a file, such as {target / source.name}.')
    if target.suffix == '.safetensors':
        raise CheckpointError(
            f'{target} would be a file of torch.save with the suffix of another format.',
            f'Name it {target.with_suffix(".pth")}.',
        )
    if target.exists() and source.exists() and os.path.samefile(target, source):
        raise CheckpointError(f'{target} is the input file, which is never overwritten.', 'Choose another name.')
    if os.path.lexists(target) and not force:
        raise CheckpointError(f'{target} exists.', 'Choose another name, or overwrite it with --force.')


def serialize(content: Mapping) -> bytes:
    """Return the bytes of a checkpoint file; equal content gives equal bytes.

    Raises:
        CheckpointError: ``torch.load(weights_only=True)`` would refuse them.
    """
    # To memory: on a full disk torch.save raises an error that does not say so.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    try:
        with only_safe_globals([]):
            torch.load(buffer, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'the content does not load with weights_only=True: {unpickling_reason(error)}.'
        ) from error
    return buffer.getvalue()


def write_atomically(data: bytes, target: Path) -> str:
    """Write a file completely or not at all; after any error the target is unchanged.

    Args:
        data: The content.
        target: The file. Its folder is made if needed; an existing file is replaced.

    Returns:
        The sha256 of the content, as hexadecimal digits.

    Raises:
        CheckpointError: The file cannot be written, as on a full disk; nothing is left of the attempt.
    """
    write_all({target: lambda: data})
    return hashlib.sha256(data).hexdigest()


def write_all(files: Mapping[Path, Callable[[], bytes]]) -> None:
    """Write all of some files or none of them.

    All are complete under other names before the first one replaces a target. If the system refuses to replace a later
    one, which is rare, the error names those that are written.

    Args:
        files: Target -> what makes its content. Folders are made if needed; existing files are replaced.

    Raises:
        CheckpointError: A file cannot be written, as on a full disk; nothing is left of the attempt.
    """
    partial: dict[Path, Path] = {}
    written: list[str] = []
    data = b''
    folders = {folder: None for target in files for folder in target.parents if not folder.exists()}
    try:
        for target, content in files.items():
            data = content()
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and not target.is_symlink():  # before the first file is replaced
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            path = partial_path(target)  # of a link: the link is replaced, not its target
            partial[target] = path
            with open_new(path) as file:
                file.write(data)
            flush(path)
        for target, path in partial.items():
            os.replace(path, target)
            written.append(str(target))
        for folder in {target.parent for target in files}:
            flush(folder)
    except OSError as error:
        size = f'{len(data) / 1e6:.1f} MB'
        changed = f'Written before it: {", ".join(written)}.' if written else 'Nothing was changed.'
        raise CheckpointError(f'{target} ({size}) cannot be written: {error.strerror}. {changed}') from error
    finally:
        for path in partial.values():
            path.unlink(missing_ok=True)
        for folder in sorted(folders, reverse=True):  # the innermost first
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def flush(path: Path) -> None:
    """Wait until a file or the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def plain_data(value: object) -> object:
    """Convert a value to Python's own types and tensors, which every reader loads; also NumPy's numbers and arrays.

    Raises:
        TypeError: It contains another type.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    # Not isinstance: members of an enumeration of strings, or NumPy's longdouble, would be pickled as their own type.
    if value is None or type(value) in (bool, int, float, complex, str, bytes):
        return value
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {plain_data(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain_data(item) for item in value]
        return tuple(items) if isinstance(value, tuple) else items
    raise TypeError(f'{type(value).__module__}.{type(value).__qualname__}')


def plain_meta(checkpoint: Checkpoint) -> tuple[dict[str, object], list[str]]:
    """Return MMEngine's description of a training run (``meta``) as plain data, and the names of the other entries.

    The others are what only serves to resume the run, and entries of ``meta`` that are no plain data.
    """
    kept, dropped = {}, [name for name in checkpoint.entries if name != 'meta']
    for name, value in checkpoint.meta.items():
        try:
            kept[name] = plain_data(value)
        except (TypeError, RecursionError) as error:  # RecursionError: a container that contains itself
            dropped.append(f'meta.{name} ({error})')
    return kept, dropped
