"""Convert STViT classifiers between the official key layout and that of an mmpretrain classifier with our modules.

Pure functions on dicts of tensors; no file is read here.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from mmstvit.errors import CheckpointError
from mmstvit.fileio import describe_content

_AFFINE = ('weight', 'bias')
_NORM = (*_AFFINE, 'running_mean', 'running_var', 'num_batches_tracked')
_BLOCK = re.compile(r'(?:layers\.([0-3])\.blocks|backbone\.stages\.([0-3]))\.(\d{1,4})\.')
# Constant identity kernels, which the official implementation registers as parameters.
CONSTANT = re.compile(r'layers\.[0-3]\.blocks\.\d+\.attn\.(unfold|fold)\.weights')
# Only STViT has this part: `layers.0.blocks.0`, `patch_embed.proj`, `norm`, `head` occur in other transformers.
_OFFICIAL = re.compile(r'layers\.[0-3]\.blocks\.\d+\.attn\.stoken_refine\..+')


class _Weight(NamedTuple):
    """A weight of a published classifier under both names."""

    published: str
    ours: str | None  # None for a constant
    kind: str = 'same'  # 'linear': a 1×1 convolution in the published layout; 'scale': (1, C, 1, 1) there


def _module(published: str, ours: str, names: Iterable[str] = _AFFINE, kind: str = 'same') -> Iterator[_Weight]:
    for name in names:
        yield _Weight(f'{published}.{name}', f'{ours}.{name}', kind if name == 'weight' else 'same')


def _block(published: str, ours: str) -> Iterator[_Weight]:
    for i in (1, 2):
        yield _Weight(f'{published}.gamma_{i}', f'{ours}.gamma{i}', 'scale')
    yield from _module(f'{published}.pos_embed.conv', f'{ours}.pos_embed')
    yield from _module(f'{published}.norm1.norm', f'{ours}.norm1')
    for name in ('unfold', 'fold'):
        yield _Weight(f'{published}.attn.{name}.weights', None)
    for name in ('qkv', 'proj'):
        yield from _module(f'{published}.attn.stoken_refine.{name}', f'{ours}.attn.{name}', kind='linear')
    yield from _module(f'{published}.norm2', f'{ours}.norm2', _NORM)
    for name in ('fc1', 'fc2'):
        yield from _module(f'{published}.mlp2.{name}', f'{ours}.ffn.{name}', kind='linear')
    yield from _module(f'{published}.mlp2.conv.conv', f'{ours}.ffn.dwconv')


def _entries(keys: Iterable[str]) -> Iterator[_Weight]:
    """Yield all entries of a classifier with the blocks that occur in keys of either layout, in the official order."""
    blocks = {(int(m[1] or m[2]), int(m[3])) for m in map(_BLOCK.match, keys) if m}
    for i in range(4):  # official: a Sequential of convolution, GELU, norm, four times
        yield from _module(f'patch_embed.proj.{3 * i}', f'backbone.patch_embed.convs.{i}')
        yield from _module(f'patch_embed.proj.{3 * i + 2}', f'backbone.patch_embed.norms.{i}', _NORM)
    for i in range(4):
        for j in sorted(j for stage, j in blocks if stage == i):
            yield from _block(f'layers.{i}.blocks.{j}', f'backbone.stages.{i}.{j}')
        if i < 3:
            yield from _module(f'layers.{i}.downsample.proj.0', f'backbone.downsamples.{i}.conv')
            yield from _module(f'layers.{i}.downsample.proj.1', f'backbone.downsamples.{i}.norm', _NORM)
    yield from _module('proj', 'neck.conv')
    yield from _module('norm', 'neck.norm', _NORM)
    yield from _module('head', 'head.fc')


def is_official(keys: Iterable[str]) -> bool:
    """Return True if keys are those of a published STViT, of a classifier or of its backbone alone."""
    return any(_OFFICIAL.fullmatch(str(key)) for key in keys)


def convert_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert a published state dict to the keys of an mmpretrain ``ImageClassifier``.

    The backbone's keys start with ``backbone.``, the tail's with ``neck.`` (:class:`mmstvit.STViTNeck`) and the
    classifier's with ``head.fc.``. Every key is accounted for: mapped, or dropped by name (``attn.unfold.weights`` and
    ``attn.fold.weights``, constant identity kernels).

    Args:
        state_dict: Weights of a published file, which holds them under ``'model'``; some of them are enough.

    Returns:
        A new dict; the tensors share memory with the input.

    Raises:
        CheckpointError: A key is not an official one, or its value is not a tensor; the message names it.
    """
    _check_not_empty(state_dict)
    entries = {entry.published: entry for entry in _entries(map(str, state_dict))}
    _check_all_known(
        state_dict,
        entries,
        'a published STViT checkpoint',
        "Pass the weights themselves, which a published file holds under 'model', without prefixes such as 'module.'.",
    )
    converted = {}
    for key, value in state_dict.items():
        entry = entries[key]
        if entry.ours is None:
            continue
        if entry.kind == 'linear' and value.dim() == 4:
            value = value.flatten(1)
        elif entry.kind == 'scale':
            value = value.flatten()
        converted[entry.ours] = value
    return converted


def to_mmstvit(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert weights of the official implementation by :func:`convert_official`; return others unchanged."""
    return convert_official(weights) if is_official(weights) else weights


def convert_to_official(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the weights of our classifier to the official layout, the reverse of :func:`convert_official`.

    Args:
        state_dict: Weights of an mmpretrain ``ImageClassifier`` with STViT, STViTNeck and LinearClsHead, in training
            form; or of its backbone alone, with the prefix ``backbone.``.

    Returns:
        A new dict in the official order, with the constant identity kernels that the official implementation registers
        as parameters. Its other tensors share memory with the input.

    Raises:
        CheckpointError: A key is not one of such a classifier, its value is not a tensor, or the weights are those of
            the deploy form.
    """
    _check_not_empty(state_dict)
    entries = {entry.ours: entry for entry in _entries(map(str, state_dict)) if entry.ours is not None}
    _check_all_known(
        state_dict,
        entries,
        'an STViT classifier',
        'Only an MMPreTrain classifier with STViT, STViTNeck and LinearClsHead (keys backbone.…, neck.…, head.fc.…) '
        'has an official layout.',
    )
    check_training_form(state_dict)
    like = next((value for value in state_dict.values() if value.is_floating_point()), torch.empty(0))
    converted = {}
    for published, ours, kind in _entries(map(str, state_dict)):
        if ours is None:
            converted[published] = torch.eye(9, dtype=like.dtype, device=like.device).reshape(9, 1, 3, 3)
        elif ours in state_dict:
            value = state_dict[ours]
            if kind == 'linear' and value.dim() == 2:
                value = value[:, :, None, None]
            elif kind == 'scale':
                value = value.reshape(1, -1, 1, 1)
            converted[published] = value
    return converted


def is_deploy_form(keys: Collection[str]) -> bool:
    """Return True if keys of ours, with any prefix, are of a model built with ``deploy=True``: blocks without norm2."""
    blocks = (re.match(r'(?:.*\.)?stages\.\d+\.\d+\.(?=ffn\.fc1\.)', str(key)) for key in keys)
    block = next(filter(None, blocks), None)
    return block is not None and f'{block[0]}norm2.weight' not in keys


def check_training_form(keys: Collection[str]) -> None:
    """Refuse weights of the deploy form, which cannot be converted; raises CheckpointError."""
    if is_deploy_form(keys):
        raise CheckpointError(
            'the weights are in deploy form, with norms folded into them.',
            'Convert the checkpoint of the training run instead.',
        )


def _check_not_empty(state_dict: Mapping[str, Tensor]) -> None:
    if not isinstance(state_dict, Mapping) or not state_dict:
        raise CheckpointError(f'a state dict with at least one key is needed, but got {describe_content(state_dict)}.')


def _check_all_known(state_dict: Mapping[str, Tensor], known: Collection[str], kind: str, remedy: str) -> None:
    """Refuse keys that are unknown and values that are not tensors."""
    unknown = [key for key, value in state_dict.items() if key not in known or not isinstance(value, Tensor)]
    if unknown:
        shown = ', '.join(map(repr, unknown[:5])) + (', …' if len(unknown) > 5 else '')
        raise CheckpointError(f'{len(unknown)} of {len(state_dict)} entries are not of {kind}: {shown}.', remedy)
