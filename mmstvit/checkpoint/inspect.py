"""Recognize the architecture of weights, and take or adapt those of a bare backbone.

Pure functions on dicts of tensors; no file is read here.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mmstvit.arch import ARCHS
from mmstvit.errors import CheckpointError
from mmstvit.fileio import describe_content

from .layout import CONSTANT, convert_official, is_official

# A weight of a block with C rows: ours with any prefix, in models of ablations too, and an official one.
_BLOCK = re.compile(
    r'(?P<prefix>(?:.*\.)?)(?:stages\.(\d)\.(\d{1,4})\.attn\.proj|layers\.(\d)\.blocks\.(\d{1,4})\.pos_embed\.conv)\.weight'
)
_STEM = re.compile(r'(?:.*\.)?patch_embed\.(?:convs|proj)\.0\.weight')


class Size(NamedTuple):
    """Channels and number of blocks of every stage."""

    channels: tuple[int, ...]
    depths: tuple[int, ...]

    def __str__(self) -> str:
        return f'channels {", ".join(map(str, self.channels))} and depths {", ".join(map(str, self.depths))}'


def find_size(weights: Mapping[str, Tensor]) -> Size | None:
    """Return channels and depths of the first STViT in weights of ours, with any prefix, or in official ones.

    Returns:
        None if the weights have no STViT, or if its first stages are missing.
    """
    matches = [(match, key) for key in weights if (match := _BLOCK.fullmatch(key))]
    channels, blocks = {}, {}
    for match, key in matches:
        if match['prefix'] == matches[0][0]['prefix'] and weights[key].dim() in (2, 4):
            stage, block = (int(number) for number in match.groups()[1:] if number is not None)
            channels[stage] = weights[key].shape[0]
            blocks.setdefault(stage, set()).add(block)
    stages = sorted(blocks)
    if not stages or stages != list(range(len(stages))):
        return None
    return Size(tuple(channels[i] for i in stages), tuple(len(blocks[i]) for i in stages))


def recognize_arch(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the architecture of weights, from their shapes.

    Args:
        weights: Weights of ours, with any prefix, or official ones; the first stages may be enough.

    Returns:
        ``'small'``, ``'base'``, … for an architecture with a name; channels and depths in words for another one, or for
        stages that several architectures share; None if the weights have no STViT.
    """
    size = find_size(weights)
    if size is None:
        return None
    stages = len(size.depths)
    names = [name for name, arch in ARCHS.items() if Size(arch.channels[:stages], arch.depths[:stages]) == size]
    return names[0] if len(names) == 1 else str(size)


def backbone_weights(weights: Mapping[str, Tensor], prefix: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Take the weights for a bare :class:`mmstvit.STViT` out of those of a whole model.

    Args:
        weights: Weights in the official layout, of a bare backbone, or of a model of ours (classifier, detector,
            segmentor).
        prefix: Prefix of the backbone's keys, such as ``'backbone.'``, which also fits official weights; None finds it.

    Returns:
        The weights without their prefix, and the names of the others: neck, head and other parts of the
        model, in official weights also the constant kernels of ``attn.unfold`` and ``attn.fold``.

    Raises:
        CheckpointError: The weights have no STViT, several without a prefix to choose one, or none with the prefix.
    """
    if is_official(weights):
        dropped = [key for key in weights if CONSTANT.fullmatch(key) or key.startswith(('proj.', 'norm.', 'head.'))]
        ours = convert_official(weights)
    else:
        dropped, ours = None, weights
    prefixes = {match['prefix']: None for match in map(_BLOCK.fullmatch, ours) if match and match[2] is not None}
    if not prefixes:
        raise CheckpointError(f'no STViT in these weights: they are {describe_content(ours)}.')
    if prefix is None:
        if len(prefixes) > 1:
            raise CheckpointError(f'several STViTs in these weights: {list(prefixes)}.', 'Choose one by its prefix.')
        (prefix,) = prefixes
    if not any(key.startswith(prefix) for key in ours):
        known = ' or '.join(f'prefix={known!r}' if known else 'no prefix' for known in prefixes)
        raise CheckpointError(f'no weight has the prefix {prefix!r}.', f'The backbone has {known}.')
    kept = {key[len(prefix) :]: value for key, value in ours.items() if key.startswith(prefix)}
    return kept, [key for key in ours if not key.startswith(prefix)] if dropped is None else dropped


def adapt_stem(weights: Mapping[str, Tensor], in_channels: int) -> dict[str, Tensor]:
    """Convert the first convolution from images of 3 channels to images of another number of channels.

    One channel gets the sum of the kernels of red, green and blue: the output is that of the gray image in all three.
    Channels after the third get kernels of zeros: the output is at first that of the red, green and blue channels.

    Args:
        weights: Weights of ours, with any prefix, or official ones.
        in_channels: Channels of the images: 1, 3 or more.

    Returns:
        A new dict that shares all tensors but the converted one. Weights for this number of channels stay the same.

    Raises:
        CheckpointError: The weights have no stem, or one for another number of channels than 3; or ``in_channels`` is
            2, which has no meaning in terms of red, green and blue.
    """
    stems = [key for key, value in weights.items() if _STEM.fullmatch(key) and value.dim() == 4]
    if not stems:
        raise CheckpointError(f'no stem of an STViT in these weights: they are {describe_content(weights)}.')
    adapted = dict(weights)
    for key in stems:
        kernel = weights[key]
        if kernel.shape[1] == in_channels:
            continue
        if kernel.shape[1] != 3:
            raise CheckpointError(
                f'{key} is for {kernel.shape[1]} channels; only a stem for 3 can be converted (to {in_channels}).'
            )
        if in_channels < 1 or in_channels == 2:
            raise CheckpointError(f'a stem can be converted to 1 channel or to more than 3, not to {in_channels}.')
        if in_channels == 1:
            adapted[key] = kernel.sum(dim=1, keepdim=True)
        else:
            zeros = kernel.new_zeros(kernel.shape[0], in_channels - 3, *kernel.shape[2:])
            adapted[key] = torch.cat([kernel, zeros], dim=1)
    return adapted
