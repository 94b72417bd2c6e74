"""What a file holds: where its weights are, of which architecture, and which of them a bare backbone loads.

Pure functions on dicts of tensors; no file is touched here.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from .errors import CheckpointError
from .layout import CONSTANT, convert_official, is_official

# Where weights are, in the order in which they are looked for. `state_dict` is MMEngine's and timm's; `model` the
# release's, beside which `model_ema` is an average that the release keeps but neither loads nor evaluates.
_WRAPPERS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')
# What DistributedDataParallel, averaged models and torch.compile put before every key, perhaps several times.
_PREFIXES = ('module.', '_orig_mod.')
# How often the weights were averaged, in averaged models of MMEngine and of torch.
_COUNTERS = ('steps', 'n_averaged')
# A position embedding inside a block, (C, 1, 3, 3): ours with any prefix, and the release's.
_POS_EMBED = re.compile(
    r'(?P<prefix>(?:.*\.)?)(?:stages\.(\d)\.(\d{1,4})\.pos_embed|layers\.(\d)\.blocks\.(\d{1,4})\.pos_embed\.conv)\.weight'
)
_STEM = re.compile(r'(?:.*\.)?patch_embed\.(?:convs|proj)\.0\.weight')


class Size(NamedTuple):
    """Channels and number of blocks of every stage that weights have; several architectures share some of them."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]

    def __str__(self) -> str:
        return f'channels {", ".join(map(str, self.channels))} and depths {", ".join(map(str, self.depths))}'


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
        raise CheckpointError(f'a dict with weights is needed, but the file holds {_describe(content)}.')
    if key is not None and key not in content:
        raise CheckpointError(f'the file has nothing under {key!r}; it holds {_describe(content)}.')
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
        raise CheckpointError(f'a dict with weights is needed, but {there} there is {_describe(weights)}.')
    strange = next((name for name, value in weights.items() if not isinstance(value, Tensor)), None)
    if strange is not None:
        raise CheckpointError(
            f'a dict with weights is needed ({", ".join(_WRAPPERS[:-1])} or the weights alone), but {there} there is '
            f'{_describe(weights)}, and {strange!r} is of type {type(weights[strange]).__name__}.'
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


def _describe(value: object) -> str:
    if isinstance(value, Mapping):
        shown = ', '.join(map(repr, list(value)[:5])) + (', …' if len(value) > 5 else '')
        return f'a dict with {shown}' if value else 'an empty dict'
    return f'a {type(value).__name__}'


def measure(weights: Mapping[str, Tensor]) -> Size | None:
    """Channels and depths of the first STViT in weights of ours, with any prefix, or of the release.

    Returns:
        None if there is no STViT in them, or if its first stages are missing.
    """
    matches = [(match, key) for key in weights if (match := _POS_EMBED.fullmatch(key))]
    channels, blocks = {}, {}
    for match, key in matches:
        if match['prefix'] == matches[0][0]['prefix'] and weights[key].dim() == 4:
            stage, block = (int(number) for number in match.groups()[1:] if number is not None)
            channels[stage] = weights[key].shape[0]
            blocks.setdefault(stage, set()).add(block)
    stages = sorted(blocks)
    if not stages or stages != list(range(len(stages))):
        return None
    return Size(tuple(channels[i] for i in stages), tuple(len(blocks[i]) for i in stages))


def recognise_arch(weights: Mapping[str, Tensor]) -> str | None:
    """Name the architecture of weights by their shapes.

    Args:
        weights: Weights of ours, with any prefix, or of the release; perhaps of the first stages alone.

    Returns:
        ``'small'``, ``'base'``, … of the architectures that are known by name; for another one, or for stages that
        several have, its channels and depths in words; None if there is no STViT in the weights.
    """
    from mmstvit.models.arch import ARCHS  # not above: models load checkpoints

    size = measure(weights)
    if size is None:
        return None
    stages = len(size.depths)
    names = [name for name, arch in ARCHS.items() if Size(arch.channels[:stages], arch.depths[:stages]) == size]
    return names[0] if len(names) == 1 else str(size)


def backbone_weights(weights: Mapping[str, Tensor], prefix: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """The weights for a bare :class:`mmstvit.STViT` out of those of a whole model.

    Args:
        weights: Weights in the release's layout, of a bare backbone, or of a model of ours with a backbone in it
            (classifier, detector, segmentor).
        prefix: What stands before the backbone's keys, such as ``'backbone.'``, the prefix of published weights too;
            None finds it.

    Returns:
        The weights without their prefix, and the names of what was left out: neck, head, whatever is beside the
        backbone, in a published file also the constant kernels of ``attn.unfold`` and ``attn.fold``.

    Raises:
        CheckpointError: There is no STViT in them, or there are several and no prefix says which.
    """
    if is_official(weights):
        dropped = [key for key in weights if CONSTANT.fullmatch(key) or key.startswith(('proj.', 'norm.', 'head.'))]
        ours = convert_official(weights)
    else:
        dropped, ours = None, weights
    prefixes = {match['prefix']: None for match in map(_POS_EMBED.fullmatch, ours) if match and match[2] is not None}
    if not prefixes:
        raise CheckpointError(f'there is no STViT in these weights: they are {_describe(ours)}.')
    if prefix is None:
        if len(prefixes) > 1:
            raise CheckpointError(
                f'there are several STViT in these weights; name one by its prefix: {list(prefixes)}.'
            )
        (prefix,) = prefixes
    if not any(key.startswith(prefix) for key in ours):
        known = ' or '.join(repr(known) if known else 'none: leave prefix out' for known in prefixes)
        raise CheckpointError(f'no weight has the prefix {prefix!r}; that of the backbone in them is {known}.')
    kept = {key[len(prefix) :]: value for key, value in ours.items() if key.startswith(prefix)}
    return kept, [key for key in ours if not key.startswith(prefix)] if dropped is None else dropped


def adapt_stem(weights: Mapping[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Convert the first convolution from images of 3 channels to images of another number of channels.

    One channel gets the sum of the kernels of red, green and blue: the output is that of the gray image in all three.
    Channels after the third get kernels of zeros: at the start the model sees red, green and blue as before, and learns
    what to make of the others.

    Args:
        weights: Weights of ours, with any prefix, or of the release.
        in_channels: Channels of the images, 1, 3 or more.

    Returns:
        A new dict; all tensors but the converted one are shared with the input. Weights that are for this number of
        channels already are not changed.

    Raises:
        CheckpointError: There is no stem; it is for another number of channels than 3; or 2 channels are asked for,
            which have no place among red, green and blue.
    """
    stems = [key for key, value in weights.items() if _STEM.fullmatch(key) and value.dim() == 4]
    if not stems:
        raise CheckpointError(f'there is no stem of an STViT in these weights: they are {_describe(weights)}.')
    adapted = dict(weights)
    for key in stems:
        kernel = weights[key]
        if kernel.shape[1] == in_channels:
            continue
        if kernel.shape[1] != 3:
            raise CheckpointError(
                f'only a stem for 3 channels can be converted, but {key} is for {kernel.shape[1]} (asked for: '
                f'{in_channels}).'
            )
        if in_channels < 1 or in_channels == 2:
            raise CheckpointError(f'a stem can be converted to 1 channel or to more than 3, not to {in_channels}.')
        if in_channels == 1:
            adapted[key] = kernel.sum(dim=1, keepdim=True)
        else:
            zeros = kernel.new_zeros(kernel.shape[0], in_channels - 3, *kernel.shape[2:])
            adapted[key] = torch.cat([kernel, zeros], dim=1)
    return adapted
