"""Read checkpoints through MMEngine's loaders without executing code.

MMEngine reads a checkpoint with the loader that is registered for the scheme of its path (``''`` for local files,
``https://``, …). :func:`safe_loading` replaces these loaders for a while.
"""

import contextlib
import dataclasses
import os
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmstvit.errors import CheckpointError, prefix_errors

from .reading import Location, read_checkpoint
from .weights import Source, find_weights

Converter = Callable[[dict[str, Tensor]], dict[str, Tensor]]
_HTTP = ('http://', 'https://')


def _unchanged(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return weights


@dataclasses.dataclass
class _Settings:
    trust: bool = False
    convert: Converter = _unchanged
    # Content that the checks have read and the run will read once more, by path and time of change.
    kept: dict[tuple[str, float], object] | None = None


_settings = _Settings()


def is_local(path: str) -> bool:
    """Return True for a path of the local file system, False for a URL or an object store."""
    return '://' not in path


@contextlib.contextmanager
def safe_loading(trust: bool = False, convert: Converter = _unchanged) -> Iterator[None]:
    """Replace MMEngine's checkpoint loaders with ones that execute no code; restore them at the end.

    Local files and files at http(s) addresses are read by :func:`read_checkpoint`; other schemes are refused.

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


def read_content(path: str, map_location: Location = 'cpu', keep: bool = False) -> object:
    """Read a checkpoint file without executing code, unless :func:`safe_loading` was told to trust it.

    Args:
        path: File or http(s) address; other schemes are read by MMEngine's loaders, if they are trusted.
        map_location: Device of the tensors, as for ``torch.load``; content that was kept stays on its device.
        keep: Keep the content in memory until it is read once more inside the same :func:`safe_loading`.

    Raises:
        CheckpointError: The file cannot be used.
    """
    if path.startswith(_HTTP):
        path = _fetch(path)
    elif not is_local(path):
        if not _settings.trust:
            _refuse(path)
        return CheckpointLoader.load_checkpoint(path, map_location)
    path = os.path.realpath(os.path.expanduser(path))
    kept = {} if _settings.kept is None else _settings.kept
    key = path, os.path.getmtime(path) if os.path.exists(path) else 0.0
    content = kept.pop(key) if key in kept else read_checkpoint(path, _settings.trust, map_location)
    if keep:
        kept[key] = content
    return content


def read_weights(path: str, prefix: str | None = None, keep: bool = False) -> Source:
    """Read the weights of a checkpoint for a whole model.

    Args:
        path: File or address.
        prefix: Take only the weights whose names have this prefix, and remove it.
        keep: As for :func:`read_content`.

    Raises:
        CheckpointError: The file cannot be used, or no name has the prefix.
    """
    source = _find_converted(read_content(path, keep=keep), path)
    if not prefix:
        return source
    prefix = add_dot(prefix)
    matching = {name[len(prefix) :]: tensor for name, tensor in source.weights.items() if name.startswith(prefix)}
    if not matching:
        raise CheckpointError(
            f'{path}: no weight has the prefix {prefix!r} (first weight: {next(iter(source.weights))!r}).'
        )
    source.dropped = [name for name in source.weights if not name.startswith(prefix)]
    source.weights = matching
    return source


def add_dot(prefix: str) -> str:
    """Return a prefix with a dot at its end; MMEngine accepts it with and without."""
    return prefix if prefix.endswith('.') else f'{prefix}.'


def _find_converted(content: object, path: str) -> Source:
    with prefix_errors(path):
        weights, where = find_weights(content)
        return Source(path, _settings.convert(weights), where)


def load_from_file(filename: str, map_location: Location = None) -> dict:  # MMEngine logs the name after load_from_
    """Load a checkpoint as MMEngine expects it, a dict with ``state_dict``."""
    content = read_content(filename, map_location)
    rest = content if isinstance(content, Mapping) and isinstance(content.get('state_dict'), Mapping) else {}
    return {**rest, 'state_dict': _find_converted(content, filename).weights}


def _fetch(address: str) -> str:
    """Download a file into torch's cache, once per machine, and return its path."""
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urllib.parse.urlparse(address).path).name
    try:
        if get_rank() == 0:
            _download(address, path)
    finally:
        barrier()
    _download(address, path)  # on other machines
    return str(path)


def _download(address: str, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(address, str(path), progress=os.isatty(0))  # renames at the end
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise CheckpointError(
            f'{address} cannot be downloaded: {error}.', 'Download it by other means and name the file.'
        ) from error


def _refuse(filename: str, map_location: Location = None) -> dict:
    raise CheckpointError(
        f'Refusing to load {filename}: the loader of this scheme may execute the code that the file holds.',
        'Download it and name the file or its https address, or pass --trust-checkpoint if you trust the source.',
    )
