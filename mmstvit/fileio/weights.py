"""Checkpoints that were read: their weights, the config of the training run and its other state."""

import dataclasses
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mmstvit.errors import CheckpointError, prefix_errors

from .configs import parse_config

# Keys under which files hold weights, in order of preference. `state_dict` is used by MMEngine and timm, `model` by the
# official implementation. Beside `model`, `model_ema` is an average that the official implementation does not evaluate.
_WRAPPERS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')
# Prefixes of DistributedDataParallel, averaged models and torch.compile; they may be repeated.
_PREFIXES = ('module.', '_orig_mod.')
# Number of averaged steps, in averaged models of MMEngine and of torch.
_COUNTERS = ('steps', 'n_averaged')


@dataclasses.dataclass
class Checkpoint:
    """A checkpoint in memory; :func:`mmstvit.fileio.open_checkpoint` reads it.

    Args:
        path: File or address.
        weights: Tensors by name.
        where: Description of their place in the file.
        entries: The other entries of the file by name: ``meta``, ``optimizer``, …
        dropped: Names of weights that were left out on purpose.
    """

    path: str
    weights: dict[str, Tensor]
    where: str = ''
    entries: dict[str, object] = dataclasses.field(default_factory=dict)
    dropped: Sequence[str] = ()

    @classmethod
    def from_content(cls, path: str, content: object, key: str | None = None) -> 'Checkpoint':
        """Find the state dict in the content of a file.

        The weights are under ``state_dict`` (MMEngine, timm), ``model`` (official implementation), ``model_ema`` or
        ``state_dict_ema``, in this order, or are the content itself. If MMEngine wrote the file with EMAHook, the
        weights under ``state_dict`` are the averaged ones. Prefixes that all keys have (``module.``, ``_orig_mod.``)
        and the counters of averaged models are removed.

        Args:
            path: File or address.
            content: What it holds; the weights share memory with it.
            key: Key of the weights, instead of the ones above, such as ``'model_ema'`` for the average.

        Raises:
            CheckpointError: The file has no weights; the message says what it has.
        """
        with prefix_errors(path):
            key, weights, where = _find_weights(content, key)
        entries = {} if key is None else {str(name): value for name, value in content.items() if name != key}
        return cls(path, _strip_prefixes(weights), where, entries)

    @property
    def meta(self) -> Mapping:
        """MMEngine's description of the training run, such as its classes; empty if the file has none."""
        meta = self.entries.get('meta')
        return meta if isinstance(meta, Mapping) else {}

    @property
    def config(self) -> dict[str, object] | None:
        """The config of the training run, parsed and never executed; None if the file has none.

        Raises CheckpointError if it holds anything but values.
        """
        return parse_config(self.meta['cfg']) if 'cfg' in self.meta else None

    def select(self, prefix: str) -> 'Checkpoint':
        """Return the weights whose names have a prefix, without it; raises CheckpointError if there are none."""
        prefix = add_dot(prefix)
        matching = {name[len(prefix) :]: tensor for name, tensor in self.weights.items() if name.startswith(prefix)}
        if not matching:
            raise CheckpointError(
                f'{self.path}: no weight has the prefix {prefix!r} (first weight: {next(iter(self.weights))!r}).'
            )
        dropped = [name for name in self.weights if not name.startswith(prefix)]
        return dataclasses.replace(self, weights=matching, dropped=dropped)

    def free_training_state(self) -> None:
        """Keep weights and ``meta`` only; optimizer, schedules and log take twice the memory of the weights."""
        self.entries = {name: value for name, value in self.entries.items() if name == 'meta'}


def add_dot(prefix: str) -> str:
    """Return a prefix with a dot at its end; MMEngine accepts it with and without."""
    return prefix if prefix.endswith('.') else f'{prefix}.'


def _find_weights(content: object, key: str | None) -> tuple[str | None, Mapping[str, Tensor], str]:
    """Return the key of the weights, None if they are the content itself; the weights; and a description of the key."""
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
    return place, weights, where


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
