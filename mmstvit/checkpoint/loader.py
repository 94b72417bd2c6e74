"""Where MMEngine's ``load_checkpoint``, ``load_from``, ``resume`` and ``init_cfg`` read from.

MMEngine reads by scheme (``''`` for local files, ``https://``, …) and registers whom to ask. Two sets of loaders are
registered here. With the import of mmstvit, local files in the layout of the release come out in ours; everything else
is read as before, as MMEngine does it, which executes what the file says where nothing else will do. Tools of this
repository call :func:`use_safe_loading`: then no file can execute anything.
"""

import os
import urllib.error
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import get_deprecated_model_names, get_external_models, get_torchvision_models
from mmengine.runner.checkpoint import load_from_local as mmengine_load_from_local

from .errors import CheckpointError, about
from .layout import convert_official, is_official
from .reading import Location, read_checkpoint
from .recognise import backbone_weights, find_weights, strip_prefixes
from .report import Source

_trusted = False


def is_local(path: str) -> bool:
    """Whether a path is on this machine's file system; URLs and object stores are MMEngine's business."""
    return '://' not in path


def read_content(path: str, map_location: Location = 'cpu') -> dict:
    """The content of a checkpoint, weights under ``state_dict`` in our layout, wherever MMEngine finds it.

    A local file is read without executing anything, unless :func:`use_safe_loading` was told to trust it.

    Args:
        path: File or address.
        map_location: Where the tensors go, as for ``torch.load``.

    Raises:
        CheckpointError: The file cannot be used.
    """
    return _arrange(_read(path, map_location), path)


def _read(path: str, map_location: Location = 'cpu') -> object:
    if is_local(path):
        return read_checkpoint(path, _trusted, map_location)
    return CheckpointLoader.load_checkpoint(path, map_location)


def read_weights(path: str, prefix: str | None = None) -> Source:
    """The weights of a checkpoint, for a whole model.

    Args:
        path: File or address.
        prefix: Of the names to take; it is taken away.

    Raises:
        CheckpointError: The file cannot be used, or has no such names.
    """
    content = read_content(path)
    with about(path):
        weights, where = find_weights(content)
        if not prefix:
            return Source(path, weights, where)
        prefix = _dotted(prefix)
        kept = {name[len(prefix) :]: tensor for name, tensor in weights.items() if name.startswith(prefix)}
        if not kept:
            raise CheckpointError(f'no weight has the prefix {prefix!r}; they are like {next(iter(weights))!r}.')
        return Source(path, kept, where, [name for name in weights if not name.startswith(prefix)])


def read_backbone(path: str, prefix: str | None = None) -> Source:
    """The weights of a checkpoint, for a bare STViT.

    Args:
        path: File or address: of the release, or of a model of ours with a backbone in it, or of the backbone alone.
        prefix: What stands before the backbone's keys, such as ``'backbone.'``; None finds it.

    Raises:
        CheckpointError: The file cannot be used.
    """
    content = _read(path)
    with about(path):
        weights, where = find_weights(content)
        kept, dropped = backbone_weights(weights, _dotted(prefix) if prefix else None)
    return Source(path, kept, where, dropped)


def _dotted(prefix: str) -> str:
    """A prefix as MMEngine understands it: with or without the dot."""
    return prefix if prefix.endswith('.') else f'{prefix}.'


def _arrange(content: object, path: str) -> dict:
    """What MMEngine expects of a checkpoint: a dict with ``state_dict``, and that in our layout."""
    state_dict = content.get('state_dict') if isinstance(content, dict) else None
    if isinstance(state_dict, dict):
        # MMEngine takes away one `module.`, and says nothing where other prefixes leave no name that it knows.
        stripped = strip_prefixes(state_dict)
        if not is_official(stripped):
            return content if stripped.keys() == state_dict.keys() else {**content, 'state_dict': stripped}
    with about(path):
        weights, _ = find_weights(content)
        if is_official(weights):
            weights = convert_official(weights)
    return dict(state_dict=weights)


def load_from_local(filename: str, map_location: Location = None) -> object:
    """For all programs: a published or safetensors file in our layout; any other as MMEngine reads it."""
    try:
        # Weights stay in the file meanwhile.
        weights, _ = find_weights(read_checkpoint(filename, map_location='cpu', mmap=True))
        ours = filename.endswith('.safetensors') or is_official(weights)
    except CheckpointError:
        ours = False
    if ours:
        return _arrange(read_checkpoint(filename, map_location=map_location), filename)
    return mmengine_load_from_local(filename, map_location)


def load_from_local_safely(filename: str, map_location: Location = None) -> dict:
    """For our tools: any local file, without executing anything unless it is trusted."""
    return _arrange(read_checkpoint(filename, _trusted, map_location), filename)


def load_from_http_safely(filename: str, map_location: Location = None) -> dict:
    """For our tools: a file that is fetched once and kept where torch keeps such, read like a local one.

    Raises:
        CheckpointError: It cannot be fetched or used.
    """
    path = Path(torch.hub.get_dir()) / 'checkpoints' / Path(urllib.parse.urlparse(filename).path).name
    try:
        if get_rank() == 0:
            _fetch(filename, path)
    finally:
        barrier()  # on another machine the others find nothing and fetch it too
    _fetch(filename, path)
    return _arrange(read_checkpoint(path, _trusted, map_location), str(path))


def load_from_torchvision_safely(filename: str, map_location: Location = None) -> dict:
    """For our tools: the address that TorchVision has for a name such as ``torchvision://resnet50``."""
    return _load_named(filename, get_torchvision_models(), map_location)


def load_from_openmmlab_safely(filename: str, map_location: Location = None) -> dict:
    """For our tools: the address that MMEngine has for a name such as ``open-mmlab://resnet50_v1c``."""
    scheme, _, name = filename.partition('://')
    name = get_deprecated_model_names().get(name, name)
    return _load_named(f'{scheme}://{name}', get_external_models(), map_location)


def _load_named(filename: str, addresses: Mapping[str, str], map_location: Location) -> dict:
    address = addresses.get(filename.partition('://')[2], '')
    if not address.startswith(('http://', 'https://')):
        raise CheckpointError(f'{filename} is unknown: there is no address for this name. Name a file.')
    return load_from_http_safely(address, map_location)


def _fetch(address: str, path: Path) -> None:
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # Writes under another name and renames at the end.
        torch.hub.download_url_to_file(address, str(path), progress=os.isatty(0))
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise CheckpointError(f'{address} cannot be fetched: {error}. Download it and name the file.') from error


def load_from_refused(filename: str, map_location: Location = None) -> dict:
    """For our tools: a scheme whose loader would execute what the file says."""
    raise CheckpointError(
        f'{filename} would be read by a loader that may execute what it holds. Download it and name the file, or its '
        f'https address; or load it as it is with --trust-checkpoint, if you trust where it comes from.'
    )


_SAFE = {
    '': load_from_local_safely,
    'http://': load_from_http_safely,
    'https://': load_from_http_safely,
    'torchvision://': load_from_torchvision_safely,
    'open-mmlab://': load_from_openmmlab_safely,
    'openmmlab://': load_from_openmmlab_safely,
}


def use_safe_loading(trust: bool = False) -> None:
    """Let no checkpoint of this process execute anything from now on, whoever loads it through MMEngine.

    Local files, those at http addresses and those that TorchVision and MMEngine have such addresses for are read by
    :func:`mmstvit.checkpoint.read_checkpoint`; other schemes are refused.

    Args:
        trust: Whether to do none of this but execute what a file asks for.
    """
    global _trusted
    _trusted = trust
    if not trust:
        # MMEngine has no public list of the schemes, some of which other packages register.
        for scheme in list(CheckpointLoader._schemes):
            CheckpointLoader.register_scheme(scheme, load_from_refused, force=True)
    for scheme, function in _SAFE.items():
        CheckpointLoader.register_scheme(scheme, function, force=True)


CheckpointLoader.register_scheme('', load_from_local, force=True)
