"""Read untrusted checkpoint files without executing code."""

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from mmstvit.compat import unpickling_reason
from mmstvit.errors import CheckpointError

from .files import open_file
from .pickles import check_size, only_safe_globals, replace_stand_ins

_DOWNLOAD = 'Download it again, and compare its size or sha256 with the published one.'
_TRUST = 'Use a safetensors file, or pass --trust-checkpoint if you trust the source.'


def read_checkpoint(path: str | Path, trust: bool = False, mmap: bool = False) -> object:
    """Read a local checkpoint file without executing code; its tensors are on the CPU.

    Besides tensors and plain containers the file may hold the options of a training run (``argparse.Namespace``),
    arrays and numbers of NumPy, and MMEngine's log (``HistoryBuffer``). A ``.safetensors`` file
    gives a dict of tensors.

    Args:
        path: The file.
        trust: Allow the file to execute code; it may then hold anything that pickle can make.
        mmap: Leave tensors in the file until they are used, to read a part of it. Damaged tensors are not noticed then.

    Returns:
        The saved object.

    Raises:
        CheckpointError: The file is missing, damaged, not a checkpoint, or would execute code.
    """
    path = Path(path).expanduser()
    kind = find_format(path, verify=not mmap)
    if kind == 'safetensors':
        return _read_safetensors(path)
    options = dict(map_location='cpu', mmap=mmap and kind == 'zip')
    try:
        if trust:
            return torch.load(path, weights_only=False, **options)
        with only_safe_globals():
            unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(path) if kind == 'zip' else []
            if not unsafe:
                content = torch.load(path, weights_only=True, **options)
                check_size(content)
                return replace_stand_ins(content)
    except Exception as error:  # a damaged or harmful pickle makes the unpickler raise anything
        reason = unpickling_reason(error)
        if not trust and isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f'Refusing to load {path}: {reason}. Nothing was executed.', f'{_DOWNLOAD} {_TRUST}'
            ) from error
        raise CheckpointError(f'{path} cannot be loaded ({type(error).__name__}: {reason}).', _DOWNLOAD) from error
    raise CheckpointError(
        f'Refusing to load {path}: unpickling it would call {", ".join(sorted(unsafe)[:3])}. Nothing was executed.',
        _TRUST,
    )


def find_format(path: Path, verify: bool) -> str:
    """Return 'zip' or 'pickle' (both of ``torch.save``) or 'safetensors'.

    Args:
        path: The file.
        verify: Compare the checksums of a zip with its content, which ``torch.load`` does not.

    Raises:
        CheckpointError: The file cannot be read, or has another format.
    """
    try:
        with open_file(path) as file:
            head = file.read(512)
    except FileNotFoundError:
        raise CheckpointError(f'{path} does not exist.') from None
    except IsADirectoryError:
        newest = max(path.glob('*.pth'), key=lambda file: file.stat().st_mtime, default=None)
        remedy = f'Name the checkpoint in it: {newest}' if newest else 'Name a .pth file; there is none in it.'
        raise CheckpointError(f'{path} is a folder.', remedy) from None
    except OSError as error:
        raise CheckpointError(f'{path} cannot be read: {error.strerror}.') from error
    except ValueError as error:  # a path with a NUL byte
        raise CheckpointError(f'{path} cannot be read: {error}.') from error
    if head.startswith(b'PK\x03\x04'):
        try:
            with zipfile.ZipFile(path) as archive:
                packed = [info.filename for info in archive.infolist() if info.compress_type != zipfile.ZIP_STORED]
                damaged = archive.testzip() if verify and not packed else None
        except Exception as error:  # damage makes zipfile raise anything
            raise CheckpointError(
                f'{path} is truncated or damaged ({path.stat().st_size} bytes).', _DOWNLOAD
            ) from error
        if packed:
            raise CheckpointError(
                f'{path} has compressed entries ({packed[0]!r}), as torchscript and archivers write, but not '
                f'torch.save.',
                _DOWNLOAD,
            )
        if damaged is not None:
            raise CheckpointError(f'{path} is damaged: the checksum of {damaged} in it does not match.', _DOWNLOAD)
        return 'zip'
    if (head and path.suffix == '.safetensors') or head[4:10] == b'\0\0\0\0{"':
        return 'safetensors'
    if head.startswith(b'\x80'):
        return 'pickle'
    if placeholder := find_placeholder(head):
        raise CheckpointError(f'{path} is {placeholder[0]}.', placeholder[1])
    raise CheckpointError(
        f'{path} is not a checkpoint (expected a file of torch.save or .safetensors): '
        + (f'it begins with {head[:8]!r}.' if head else 'it is empty.'),
        _DOWNLOAD,
    )


def find_placeholder(start: bytes) -> tuple[str, str] | None:
    """Recognize a file that stands where another one should be: a web page or a pointer of Git LFS.

    Args:
        start: The first bytes of the file, 64 or more.

    Returns:
        What the file is, and the remedy; None for any other file.
    """
    text = start.lstrip(b'\xef\xbb\xbf \t\r\n').lower()
    if text.startswith((b'<!doctype', b'<html')):
        return 'a web page (HTML), as a failed download leaves it', 'Download it again.'
    if text.startswith(b'version https://git-lfs'):
        return 'a pointer of Git LFS, not the file itself', 'Fetch it with: git lfs pull'
    return None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        import safetensors
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointError(f'{path} needs the package safetensors.', 'Run: pip install safetensors') from error
    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f'{path} is damaged, or not a safetensors file ({error}).', _DOWNLOAD) from error
