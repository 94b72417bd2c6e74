"""Find the weights in the content of a checkpoint file, and check them."""

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmstvit.errors import CheckpointError

from .reading import read_checkpoint

# Keys under which files hold weights, in order of preference. `state_dict` is used by MMEngine and timm, `model` by the
# official implementation. Beside `model`, `model_ema` is an average that the official implementation does not evaluate.
_WRAPPERS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')
# Prefixes of DistributedDataParallel, averaged models and torch.compile; they may be repeated.
_PREFIXES = ('module.', '_orig_mod.')
# Number of averaged steps, in averaged models of MMEngine and of torch.
_COUNTERS = ('steps', 'n_averaged')


@dataclasses.dataclass
class Source:
    """Weights and their origin.

    Args:
        path: File or address.
        weights: Tensors by name.
        where: Description of their place in the file.
        dropped: Names that were left out on purpose.
    """

    path: str
    weights: dict[str, Tensor]
    where: str = ''
    dropped: Sequence[str] = ()


def find_weights(content: object, key: str | None = None) -> tuple[dict[str, Tensor], str]:
    """Find the state dict in the content of a checkpoint file.

    The weights are under ``state_dict`` (MMEngine, timm), ``model`` (official implementation), ``model_ema`` or
    ``state_dict_ema``, in this order, or are the content itself. If MMEngine wrote the file with EMAHook, the weights
    under ``state_dict`` are the averaged ones. Prefixes that all keys have (``module.``, ``_orig_mod.``) and the
    counters of averaged models are removed.

    Args:
        content: Content of the file.
        key: Key of the weights, instead of the ones above, such as ``'model_ema'`` for the average.

    Returns:
        The weights, which share memory with the content, and a description of their place in the file.

    Raises:
        CheckpointError: The file has no weights; the message says what it has.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f'a dict with weights is needed, but the file holds {describe_content(content)}.')
    if key is not None and key not in content:
        raise CheckpointError(f'the file has nothing under {key!r}; it holds {describe_content(content)}.')
    found = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
    place = key if key is not None else next(iter(found), None)
    weights = content if place is None else content[place]
    where = 'the file itself' if place is None else f'under {place!r}'
    if not isinstance(weights, Mapping) or not weights:
        raise CheckpointError(f'a dict with weights is needed, but {where} is {describe_content(weights)}.')
    other = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
    if other is not None:
        raise CheckpointError(
            f'a dict with weights is needed (under {", ".join(_WRAPPERS[:-1])}, or the file itself), but {where} is '
            f'{describe_content(weights)}, and {other!r} is of type {type(weights[other]).__name__}.'
        )
    if place == 'state_dict' and 'ema_state_dict' in content:
        where += " (averaged by EMAHook; not used: 'ema_state_dict', the weights of the last step)"
    elif len(found) > 1 and key is None:
        where += f' (not used: {", ".join(map(repr, found[1:]))})'
    return _strip_prefixes(weights), where


def _strip_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that all weights have, and counters beside such weights.

    The versions of modules, which PyTorch keeps in ``_metadata``, are kept: some heads of MMDetection take weights
    without a version for old ones and rename them.
    """
    versions = getattr(weights, '_metadata', None)
    weights = OrderedDict((str(key), value) for key, value in weights.items())
    while True:
        names = [key for key in weights if key not in _COUNTERS]
        prefix = next((p for p in _PREFIXES if names and all(key.startswith(p) for key in names)), None)
        if prefix is None:
            break
        weights = OrderedDict((key[len(prefix) :], weights[key]) for key in names)
        if isinstance(versions, Mapping):
            versions = {name[len(prefix) :]: value for name, value in versions.items() if f'{name}.'.startswith(prefix)}
    if isinstance(versions, Mapping):
        weights._metadata = versions
    return weights


def describe_content(value: object) -> str:
    """Return the type of a value, and the first keys of a dict, for messages."""
    if isinstance(value, Mapping):
        shown = ', '.join(map(repr, list(value)[:5])) + (', …' if len(value) > 5 else '')
        return f'a dict with {shown}' if value else 'an empty dict'
    return f'a {type(value).__name__}'


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


def check_finite(weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse weights with NaN or Inf.

    Args:
        weights: Tensors by name; integers and other values are skipped.
        path: Path of the file, for the message.

    Raises:
        CheckpointError: Names the first tensor with NaN or Inf, and counts the others.
    """
    bad = {}
    for key, tensor in weights.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            tensor = tensor.float() if tensor.element_size() == 1 else tensor  # isfinite does not take 8-bit floats
            if not torch.isfinite(tensor).all():
                bad[key] = tensor
    if bad:
        key, tensor = next(iter(bad.items()))
        nans, infs = torch.isnan(tensor).sum(), torch.isinf(tensor).sum()
        raise CheckpointError(
            f'{path} has NaN or Inf in {len(bad)} of {len(weights)} tensors, first in {key} ({nans} NaN and {infs} Inf '
            f'of {tensor.numel()}): the training run that wrote it had diverged.',
            'Use an earlier checkpoint.',
        )
