"""Files that the converters write: whole or not at all, and loadable by anyone without executing anything."""

import hashlib
import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmstvit.errors import CheckpointError

from .pickles import only_allowed


def check_target(target: Path, source: Path, force: bool = False) -> None:
    """Refuse to write where nothing may be written, before any work is done.

    Args:
        target: The file to write.
        source: The file that it is made from, which is never overwritten.
        force: Whether another file may be overwritten.

    Raises:
        CheckpointError: The target exists and may not be overwritten, is no place for a file, or has the name of
            another format.
    """
    if target.is_dir():
        raise CheckpointError(f'{target} is a folder; name a file, such as {target / source.name}.')
    if target.suffix == '.safetensors':
        raise CheckpointError(
            f'{target} would be a file of torch.save under the name of another format: name it '
            f'{target.with_suffix(".pth")}.'
        )
    if target.exists() and source.exists() and os.path.samefile(target, source):
        raise CheckpointError(f'{target} is the file to read, which nothing brings back; choose another name.')
    if os.path.lexists(target) and not force:
        raise CheckpointError(f'{target} exists; choose another name, or overwrite it with --force.')


def serialize(content: Mapping) -> bytes:
    """The bytes of a checkpoint file; the same content gives the same bytes.

    Raises:
        CheckpointError: ``torch.load(weights_only=True)`` would refuse them.
    """
    # To memory: writing straight to a full disk, torch.save raises an error that does not say so.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    buffer.seek(0)
    try:
        with only_allowed():
            torch.load(buffer, map_location='cpu', weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f'what would be written does not load with weights_only=True: {str(error).splitlines()[0]}'
        ) from error
    return buffer.getvalue()


def write_atomically(data: bytes, target: Path) -> str:
    """Write a file, whole or not at all: whatever happens, the target is the file of before or the new one.

    Args:
        data: The content.
        target: The file. Its folder is made if need be; what was in the file is replaced.

    Returns:
        The content's sha256, as hexadecimal digits.

    Raises:
        CheckpointError: It cannot be written, such as for a full disk; nothing is left of the attempt.
    """
    partial = target.with_name(target.name + '.partial')
    new_folders = [folder for folder in target.parents if not folder.exists()]  # the innermost first
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, 'wb') as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        for folder in new_folders:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        size = f'{len(data) / 1e6:.1f} MB'
        raise CheckpointError(f'{target} ({size}) cannot be written: {error.strerror}. Nothing was changed.') from error
    return hashlib.sha256(data).hexdigest()


def plain_data(value: object) -> object:
    """A value as Python's own types and tensors, which every reader loads; numbers and arrays of NumPy become such.

    Raises:
        TypeError: There is something else in it.
    """
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    # Not isinstance: members of an enumeration of strings, or NumPy's longdouble, would be written as what they are.
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


def plain_meta(content: object) -> tuple[dict[str, object], list[str]]:
    """The description that MMEngine writes beside the weights (``meta``) as plain data, and the names of what is none.

    Args:
        content: What a checkpoint file holds.
    """
    meta = content.get('meta') if isinstance(content, Mapping) else None
    kept, dropped = {}, []
    for name, value in meta.items() if isinstance(meta, Mapping) else ():
        try:
            kept[name] = plain_data(value)
        except (TypeError, RecursionError) as error:  # the latter for what contains itself
            dropped.append(f'meta.{name} ({error})')
    return kept, dropped
