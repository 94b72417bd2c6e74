"""Read checkpoints through MMEngine's loaders without executing what they hold.

MMEngine reads a checkpoint by its scheme (``''`` for local files, ``https://``, …) with the loader registered for it.
Inside :func:`safe_loading` these loaders are ours.
"""

import contextlib
import dataclasses
import os
import urllib.error
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmstvit.errors import CheckpointError, prefix_errors

from .reading import Location, read_checkpoint
from .weights import Source, find_weights, strip_prefixes

Converter = Callable[[dict[str, Tensor]], dict[str, Tensor]]


@dataclasses.dataclass
class _Settings:
    trust: bool = False
    convert: Converter | None = None
    # Content that the checks have read and the run will read once more, by (path, time of change, device).
    kept: dict[tuple, object] = dataclasses.field(default_factory=dict)


_settings = _Settings()


def is_local(path: str) -> bool:
    """Return True for a path of the local file system, False for a URL or an object store."""
    return '://' not in path


@contextlib.contextmanager
def safe_loading(trust: bool = False, convert: Converter | None = None) -> Iterator[None]:
    """Replace MMEngine's checkpoint loaders with ones that execute nothing; restore them at the end.

    Local files and files at http(s) addresses are read by :func:`read_checkpoint`; any other scheme is refused.

    Args:
        trust: Leave MMEngine's loaders for other schemes in place, and execute what a checkpoint asks for.
        convert: Function that renames the weights of a foreign file; others it returns unchanged.
    """
    global _settings
    before, schemes = _settings, dict(CheckpointLoader._schemes)
    _settings = _Settings(trust, convert)
    if not trust:
        for scheme in schemes:
            CheckpointLoader.register_scheme(scheme, _refuse, force=True)
    for scheme, loader in (('', _load_local), ('http://', _load_http), ('https://', _load_http)):
        CheckpointLoader.register_scheme(scheme, loader, force=True)
    try:
        yield
    finally:
        _settings = before
        CheckpointLoader._schemes = schemes


def read_content(path: str, map_location: Location = 'cpu', keep: bool = False) -> object:
    """Read a checkpoint from wherever MMEngine finds it, without executing it unless it is trusted.

    Args:
        path: File or address.
        map_location: Device of the tensors, as for ``torch.load``.
        keep: Keep the content of a local file in memory until it is read once more inside :func:`safe_loading`.

    Returns:
        The content of a local file as it is; of an address, as MMEngine's loader returns it.

    Raises:
        CheckpointError: The file cannot be used.
    """
    if not is_local(path):
        return CheckpointLoader.load_checkpoint(path, map_location)
    path = os.path.realpath(os.path.expanduser(path))
    key = path, os.path.getmtime(path) if os.path.exists(path) else None, str(map_location)
    content = _settings.kept.pop(key, None)
    if content is None:
        content = read_checkpoint(path, _settings.trust, map_location)
    if keep and _settings is not _DEFAULT:
        _settings.kept[key] = content
    return content


_DEFAULT = _settings


def read_weights(path: str, prefix: str | None = None, keep: bool = False) -> Source:
    """Read the weights of a checkpoint for a whole model.

    Args:
        path: File or address.
        prefix: Take only the weights whose names have this prefix, and remove it.
        keep: As for :func:`read_content`.

    Raises:
        CheckpointError: The file cannot be used, or no name has the prefix.
    """
    content = read_content(path, keep=keep)
    with prefix_errors(path):
        weights, where = find_weights(content)
        if _settings.convert is not None:
            weights = _settings.convert(weights)
        if not prefix:
            return Source(path, weights, where)
        prefix = dotted(prefix)
        kept = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
        if not kept:
            raise CheckpointError(f'no weight has the prefix {prefix!r}; they are like {next(iter(weights))!r}.')
        return Source(path, kept, where, [name for name in weights if not name.startswith(prefix)])


def dotted(prefix: str) -> str:
    """Return a prefix with a dot at its end; MMEngine accepts both."""
    return prefix if prefix.endswith('.') else f'{prefix}.'


def arrange(content: object, path: str) -> dict:
    """Return content as MMEngine expects it: a dict with ``state_dict``, its weights converted and without prefixes."""
    state_dict = content.get('state_dict') if isinstance(content, dict) else None
    if isinstance(state_dict, dict):
        # MMEngine removes one `module.`, and loads nothing where other prefixes are left.
        weights = strip_prefixes(state_dict)
        rest = content
    else:
        with prefix_errors(path):
            weights, _ = find_weights(content)
        rest = {}
    if _settings.convert is not None:
        with prefix_errors(path):
            weights = _settings.convert(weights)
    return {**rest, 'state_dict': weights}


def _load_local(filename: str, map_location: Location = None) -> dict:
    return arrange(read_content(filename, map_location), filename)


def _load_http(filename: str, map_location: Location = None) -> dict:
    """Fetch a file once into torch's cache and read it like a local one."""
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urllib.parse.urlparse(filename).path).name
    try:
        if get_rank() == 0:
            _fetch(filename, path)
    finally:
        barrier()  # processes on another machine find no file and fetch it too
    _fetch(filename, path)
    return _load_local(str(path), map_location)


def _fetch(address: str, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(address, str(path), progress=os.isatty(0))  # renames at the end
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise CheckpointError(f'{address} cannot be fetched: {error}.', 'Download it and name the file.') from error


def _refuse(filename: str, map_location: Location = None) -> dict:
    raise CheckpointError(
        f'Refusing to load {filename}: the loader of this scheme may execute what the file holds.',
        'Download it and name the file or its https address, or pass --trust-checkpoint if you trust the source.',
    )
