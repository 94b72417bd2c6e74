"""Find the weights in the content of a checkpoint file, and check them."""

import dataclasses
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmstvit.errors import CheckpointError

from .reading import read_checkpoint

# Where weights are, in the order in which they are looked for. `state_dict` is MMEngine's and timm's; `model` the
# release's, beside which `model_ema` is an average that the release keeps but neither loads nor evaluates.
_WRAPPERS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')
# What DistributedDataParallel, averaged models and torch.compile put before every key, perhaps several times.
_PREFIXES = ('module.', '_orig_mod.')
# How often the weights were averaged, in averaged models of MMEngine and of torch.
_COUNTERS = ('steps', 'n_averaged')


@dataclasses.dataclass
class Source:
    """Weights and where they come from.

    Args:
        path: File or address.
        weights: Tensors by name.
        where: In words, where in the file they were.
        dropped: Names that were left out on purpose.
    """

    path: str
    weights: dict[str, Tensor]
    where: str = ''
    dropped: Sequence[str] = ()


def find_weights(content: object, key: str | None = None) -> tuple[dict[str, Tensor], str]:
    """The state dict inside whatever a checkpoint file holds.

    Weights are looked for under ``state_dict`` (MMEngine, timm), ``model`` (the release), ``model_ema`` and
    ``state_dict_ema``, in this order, or are the content itself. Of a published training file, which may hold an
    average under ``model_ema`` too, ``model`` is what the release loads and evaluates. A checkpoint that MMEngine wrote
    with averaging (EMAHook) has the averaged weights under ``state_dict``. Prefixes that every key has (``module.``,
    ``_orig_mod.``) and the counters of averaged models are taken away.

    Args:
        content: What the file holds.
        key: Where to look, instead of the places above: such as ``'model_ema'`` for the average of the release.

    Returns:
        The weights, which share memory with the content, and in words where they were.

    Raises:
        CheckpointError: There are none; the message says what there is.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f'a dict with weights is needed, but the file holds {describe(content)}.')
    if key is not None and key not in content:
        raise CheckpointError(f'the file has nothing under {key!r}; it holds {describe(content)}.')
    found = [name for name in _WRAPPERS if isinstance(content.get(name), Mapping)]
    place = key if key is not None else next(iter(found), None)
    weights = content if place is None else content[place]
    where = 'the file itself' if place is None else f'under {place!r}'
    if place == 'state_dict' and 'ema_state_dict' in content:
        where += " (averaged, as MMEngine evaluates them; not used: 'ema_state_dict', of the last step)"
    elif len(found) > 1 and key is None:
        where += f' (not used: {", ".join(map(repr, found[1:]))})'

    there = 'in the file itself' if place is None else where
    if not isinstance(weights, Mapping) or not weights:
        raise CheckpointError(f'a dict with weights is needed, but {there} there is {describe(weights)}.')
    strange = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
    if strange is not None:
        raise CheckpointError(
            f'a dict with weights is needed ({", ".join(_WRAPPERS[:-1])} or the weights alone), but {there} there is '
            f'{describe(weights)}, and {strange!r} is of type {type(weights[strange]).__name__}.'
        )
    return strip_prefixes(weights), where


def strip_prefixes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefixes (``module.``, ``_orig_mod.``) that all have, and without counters beside such.

    The versions of the modules, which PyTorch keeps beside the weights, stay there: some heads of MMDetection take
    weights without a version for those of old releases and rename them.
    """
    versions = getattr(weights, '_metadata', None)
    weights = OrderedDict((str(key), value) for key, value in weights.items())
    while True:
        named = [key for key in weights if key not in _COUNTERS]
        prefix = next((p for p in _PREFIXES if named and all(key.startswith(p) for key in named)), None)
        if prefix is None:
            break
        weights = OrderedDict((key[len(prefix) :], weights[key]) for key in named)
        if isinstance(versions, Mapping):
            inner = {name: value for name, value in versions.items() if f'{name}.'.startswith(prefix)}
            versions = {name[len(prefix) :]: value for name, value in inner.items()}
    if isinstance(versions, Mapping):
        weights._metadata = versions
    return weights


def describe(value: object) -> str:
    if isinstance(value, Mapping):
        shown = ', '.join(map(repr, list(value)[:5])) + (', …' if len(value) > 5 else '')
        return f'a dict with {shown}' if value else 'an empty dict'
    return f'a {type(value).__name__}'


def resumable_checkpoints(folders: Iterable[Path]) -> Iterator[tuple[Path, Mapping]]:
    """The checkpoints of folders that a training can go on from, the newest first: its path and what it holds.

    The best checkpoint and published ones have no optimizer. Files that cannot be read, or not without executing them,
    are passed over.
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
    """Refuse weights that are not numbers.

    Args:
        weights: Tensors by name; other values, and integers, are passed over.
        path: Where from, for the message.

    Raises:
        CheckpointError: Names the first tensor with NaN or Inf, and says how many have them.
    """
    bad = {}
    for key, tensor in weights.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point():
            tensor = tensor.float() if tensor.element_size() == 1 else tensor  # no isfinite for 8-bit floats
            if not torch.isfinite(tensor).all():
                bad[key] = tensor
    if bad:
        key, tensor = next(iter(bad.items()))
        nans, infs = torch.isnan(tensor).sum(), torch.isinf(tensor).sum()
        raise CheckpointError(
            f'{path} has NaN or Inf in {len(bad)} of {len(weights)} tensors, first in {key} ({nans} NaN and {infs} Inf '
            f'of {tensor.numel()}): the training that wrote it had diverged. Take an earlier checkpoint.'
        )
