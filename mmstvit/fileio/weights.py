"""Checkpoints that were read: their weights, the config of the training run and its other state."""

import dataclasses
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, strided

from mmstvit.errors import CheckpointError

from .configs import parse_config

# Keys under which files hold weights, in order of preference. `state_dict` is used by MMEngine and timm, `model` by the
# official implementation; `model_ema` of its files is an average that it does not evaluate.
_KEYS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')
# Prefixes of DistributedDataParallel, averaged models and torch.compile.
_PREFIXES = re.compile(r'(?:module\.|_orig_mod\.)*')
# Number of averaged steps, in averaged models of MMEngine and of torch.
_COUNTERS = ('steps', 'n_averaged')


@dataclasses.dataclass
class Checkpoint:
    """A checkpoint in memory; :func:`mmstvit.fileio.open_checkpoint` reads it.

    Args:
        path: File or address.
        weights: Tensors by name.
        where: The key of the weights in the file, in words.
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
        """Find the weights in the content of a file.

        They are under ``state_dict`` (MMEngine, timm), ``model`` (official implementation), ``model_ema`` or
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
        needed = f'{path}: a dict with weights is needed'
        if not isinstance(content, Mapping):
            raise CheckpointError(f'{needed}, but the file holds {describe_content(content)}.')
        if key is not None and key not in content:
            raise CheckpointError(f'{path}: the file has nothing under {key!r}; it holds {describe_content(content)}.')
        usual = [name for name in _KEYS if isinstance(content.get(name), Mapping)]
        others = usual[1:] if key is None else []
        key = next(iter(usual), None) if key is None else key
        weights = content if key is None else content[key]
        where = 'the file itself' if key is None else f'under {key!r}'
        if not isinstance(weights, Mapping) or not weights:
            raise CheckpointError(f'{needed}, but {where} is {describe_content(weights)}.')
        other = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
        if other is not None:
            raise CheckpointError(
                f'{needed} (under {", ".join(_KEYS[:-1])}, or the file itself), but {where} is '
                f'{describe_content(weights)}, and {other!r} is of type {type(weights[other]).__name__}.'
            )
        if odd := next((name for name, tensor in weights.items() if tensor.layout != strided or tensor.is_meta), None):
            raise CheckpointError(
                f'{path}: {odd!r} is a sparse tensor, or one without values; weights are dense.', 'Save dense tensors.'
            )
        if key == 'state_dict' and 'ema_state_dict' in content:
            where += " (averaged by EMAHook; not used: 'ema_state_dict', the weights of the last step)"
        elif others:
            where += f' (not used: {", ".join(map(repr, others))})'
        entries = {} if key is None else {str(name): value for name, value in content.items() if name != key}
        return cls(path, _strip_prefix(weights), where, entries)

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

    def check_finite(self, names: Iterable[str] | None = None) -> None:
        """Refuse weights with NaN or Inf: of these names, or all.

        Raises:
            CheckpointError: Names the first tensor with NaN or Inf, and counts the others.
        """
        weights = {name: self.weights[name] for name in (self.weights if names is None else names)}
        bad = [text for text in map(find_nonfinite, weights, weights.values()) if text]
        if bad:
            raise CheckpointError(
                f'{self.path} has NaN or Inf in {len(bad)} of {len(weights)} tensors, first in {bad[0]}: the training '
                f'run that wrote it had diverged.',
                'Use an earlier checkpoint.',
            )


def find_nonfinite(name: str, tensor: Tensor) -> str:
    """Describe the NaN and Inf of a tensor; empty if it has none."""
    if tensor.is_floating_point():
        tensor = tensor.float() if tensor.element_size() == 1 else tensor  # isfinite does not take 8-bit floats
        if not tensor.isfinite().all():
            return f'{name}: {tensor.isnan().sum()} NaN and {tensor.isinf().sum()} Inf in {tensor.numel()} values'
    return ''


def add_dot(prefix: str) -> str:
    """Return a prefix with a dot at its end; MMEngine accepts it with and without."""
    return prefix if prefix.endswith('.') else f'{prefix}.'


def _strip_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes that all weights have, and the counters of averaged models.

    The versions of modules, which PyTorch keeps in ``_metadata``, are kept: some heads of MMDetection take weights
    without a version for old ones and rename them.
    """
    names = {str(name): name for name in weights}
    learned = {key: name for key, name in names.items() if key not in _COUNTERS}
    prefix = os.path.commonprefix([_PREFIXES.match(key)[0] for key in learned])
    names = learned if prefix else names
    stripped = OrderedDict((key[len(prefix) :], weights[name]) for key, name in names.items())
    versions = getattr(weights, '_metadata', None)
    if isinstance(versions, Mapping):
        own = {
            name: value
            for name, value in versions.items()
            if isinstance(name, str) and isinstance(value, Mapping) and f'{name}.'.startswith(prefix)
        }
        stripped._metadata = {name[len(prefix) :]: value for name, value in own.items()}
    return stripped


def describe_content(value: object) -> str:
    """Return the type of a value, and the first keys of a dict, for messages."""
    if isinstance(value, Mapping):
        shown = ', '.join(map(repr, list(value)[:5])) + (', …' if len(value) > 5 else '')
        return f'a dict with {shown}' if value else 'an empty dict'
    return f'a {type(value).__name__}'
