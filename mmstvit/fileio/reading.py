"""Files of strangers: read, never executed."""

import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from mmstvit.errors import CheckpointError

from .pickles import settle, stand_ins

_DOWNLOAD = "Download it again, in a browser if need be, and compare its size or sha256 with the publisher's."
_EXPECTED = 'A checkpoint written by torch.save, or a .safetensors file, was expected.'
# First bytes of files that people take for checkpoints.
_FORMATS = {
    b'\x1f\x8b': 'a gzip archive: unpack it first',
    b'BZh': 'a bzip2 archive: unpack it first',
    b'\xfd7zXZ': 'an xz archive: unpack it first',
    b'7z\xbc\xaf': 'a 7z archive: unpack it first',
    b'Rar!': 'a RAR archive: unpack it first',
    b'\x89PNG': 'a PNG image',
    b'\xff\xd8\xff': 'a JPEG image',
    b'%PDF': 'a PDF document',
    b'\x89HDF': 'an HDF5 file',
    b'\x93NUMPY': 'a NumPy array',
    b'\x7fELF': 'a program',
}
Location = str | torch.device | Callable


def read_checkpoint(
    path: str | Path, trust: bool = False, map_location: Location = 'cpu', mmap: bool = False
) -> object:
    """The content of a local checkpoint file; nothing of it is executed.

    Besides tensors and plain containers the file may hold the options of a training (``argparse.Namespace``), arrays
    and numbers of NumPy and MMEngine's log (``HistoryBuffer``). A ``.safetensors`` file gives a dict of tensors.

    Args:
        path: The file.
        trust: Whether the file may execute code: it may hold anything that pickle can make.
        map_location: Where the tensors go, as for ``torch.load``.
        mmap: Whether tensors stay in the file until they are used, for a look at a part of it. Damage to them then goes
            unnoticed.

    Returns:
        What was saved.

    Raises:
        CheckpointError: The file is missing, damaged, of another kind, or would have to execute code.
    """
    path = Path(os.path.expanduser(path))
    kind = _kind(path, check=not mmap)
    if kind == 'safetensors':
        return _read_safetensors(path, map_location)
    options = dict(map_location=map_location, mmap=mmap and kind == 'zip')
    try:
        if trust:
            return torch.load(path, weights_only=False, **options)
        with stand_ins():
            content = torch.load(path, weights_only=True, **options)
        return settle(content)
    except Exception as error:  # a damaged or harmful pickle makes the unpickler raise anything
        raise CheckpointError(_reason(path, kind, error)) from error


def _kind(path: Path, check: bool) -> str:
    """'zip' or 'pickle' (of torch.save) or 'safetensors'; raises CheckpointError for anything else.

    With ``check``, the checksums of a zip are compared with its content.
    """
    if path.is_dir():
        raise CheckpointError(f'{path} is a folder. {_EXPECTED}')
    try:
        with open(path, 'rb') as file:
            head = file.read(512)
    except FileNotFoundError:
        raise CheckpointError(f'the checkpoint {path} does not exist.') from None
    except OSError as error:
        raise CheckpointError(f'the checkpoint {path} cannot be read: {error.strerror}') from error
    if not head:
        raise CheckpointError(f'{path} is empty (0 bytes), as a failed download or a full disk leaves it. {_DOWNLOAD}')
    if head.startswith(b'PK\x03\x04'):
        return _kind_of_zip(path, check)
    if path.suffix == '.safetensors' or head[4:10] == b'\0\0\0\0{"':
        return 'safetensors'
    # torch.load looks for tar archives before all else and, before torch 2.6, executes what is in them.
    if head.startswith(b'\x80') and not tarfile.is_tarfile(path):
        return 'pickle'
    raise CheckpointError(f'{path} is {_describe(head)}')


def _kind_of_zip(path: Path, check: bool) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition('/')[2] for name in archive.namelist()}
            damaged = archive.testzip() if check else None  # torch would not notice
    except Exception as error:  # damage makes zipfile raise anything
        raise CheckpointError(
            f'{path} is truncated or damaged ({path.stat().st_size} bytes): the index that a file of torch.save ends '
            f'with cannot be read. {_DOWNLOAD}'
        ) from error
    if damaged is not None:
        raise CheckpointError(f'{path} is damaged: the checksum of {damaged} in it does not agree. {_DOWNLOAD}')
    if 'constants.pkl' in names:
        raise CheckpointError(f'{path} is a TorchScript program. {_EXPECTED}')
    if 'data.pkl' not in names:
        raise CheckpointError(
            f'{path} is a zip archive of something else ({", ".join(sorted(names)[:3])}). {_EXPECTED}'
        )
    return 'zip'


def _describe(head: bytes) -> str:
    """What a file is that is no checkpoint, from its first bytes."""
    text = head.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if text.startswith((b'<!doctype', b'<html', b'<head', b'<?xml', b'<!--')):
        return (
            f'a web page (HTML), not weights: what a failed download leaves, from Google Drive above all. {_DOWNLOAD}'
        )
    if text.startswith(b'version https://git-lfs'):
        return 'a pointer of Git LFS, not weights. Fetch the file itself: git lfs pull'
    for magic, name in _FORMATS.items():
        if head.startswith(magic):
            return f'{name}. {_EXPECTED}'
    if head[257:262] == b'ustar':
        return f'a tar archive: unpack it first. {_EXPECTED}'
    if head[:1] == b'\x08' and head[2:3] == b'\x12':
        return f'an ONNX model or the like. {_EXPECTED}'
    if all(byte >= 32 or byte in b'\t\r\n' for byte in head):
        shown = head[:40].decode(errors='replace').splitlines()[0]
        return f'a text file that begins with {shown!r}, not weights. {_DOWNLOAD}'
    return f'of an unknown format (first bytes {head[:8].hex(" ")}). {_EXPECTED}'


def _reason(path: Path, kind: str, error: Exception) -> str:
    """Why a file of torch.save cannot be loaded, from what torch raised."""
    text = str(error)
    wanted = re.search(r'GLOBAL (\S+) (was not an allowed|whose module)', text)
    if wanted and not (kind == 'pickle' and _ends_with(path, wanted[1])):
        return (
            f'{path} wants to run {wanted[1]}, as a harmful file would; nothing of it was executed. Ask for the '
            f'weights alone (safetensors); or, if you trust where it comes from, tools/train.py and tools/test.py load '
            f'it with --trust-checkpoint.'
        )
    if (kind == 'pickle' and 'magic number' in text) or 'Unsupported operand' in text:
        return f'{path} is a pickle of something else, and was not executed. {_EXPECTED}'
    # Before its reason, torch recommends to load the file unsafely, whatever is the matter.
    refused = re.search(r'WeightsUnpickler error:\s*(.+)', text)
    if refused:
        return (
            f'{path} is damaged, or holds what no checkpoint needs ({refused[1].strip()}); nothing of it was executed. '
            f'{_DOWNLOAD} If you trust where it comes from, tools/train.py and tools/test.py load it with '
            f'--trust-checkpoint.'
        )
    first = text.splitlines()[0] if text else ''
    return f'{path} is damaged and cannot be loaded ({type(error).__name__}: {first}). {_DOWNLOAD}'


def _ends_with(path: Path, name: str) -> bool:
    """Whether a file was cut off in the middle of a name, which is then none that anybody wanted."""
    with open(path, 'rb') as file:
        file.seek(-min(200, path.stat().st_size), os.SEEK_END)
        tail = file.read().replace(b'\n', b'.')
    return tail[:-1].endswith(name.rstrip('.').encode())  # torch takes the last byte for the end of the line


def _read_safetensors(path: Path, map_location: Location) -> dict[str, Tensor]:
    try:
        import safetensors
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointError(f'{path} needs the package safetensors. Run: pip install safetensors') from error
    try:
        weights = load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f'{path} is damaged, or no safetensors file ({error}). {_DOWNLOAD}') from error
    if isinstance(map_location, (str, torch.device)):
        weights = {key: tensor.to(map_location) for key, tensor in weights.items()}
    return weights
