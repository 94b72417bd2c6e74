"""Shared steps of ``tools/model_converters``: checking, writing, and the summary."""

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from mmstvit.checkpoint import find_size, recognize_arch
from mmstvit.command_line import print_rows
from mmstvit.errors import CheckpointError
from mmstvit.fileio import Checkpoint, serialize, write_atomically
from mmstvit.models import STViT, STViTNeck


def verify_classifier(weights: Mapping[str, Tensor]) -> str:
    """Load weights strictly into the classifier for their shapes, and describe it.

    Args:
        weights: Weights in the layout of our classifier: ``backbone.…``, ``neck.…``, ``head.fc.…``. Neck and head, or
            the head, may be missing as a whole.

    Returns:
        The architecture, by name or by channels and depths; the number of parameters; and the parts.

    Raises:
        CheckpointError: A weight is missing, unexpected or of another shape.
    """
    arch = recognize_arch(weights)
    if arch is None:
        raise CheckpointError('no STViT in the weights: its blocks, or those of its first stages, are missing.')
    parts = [part for part in ('backbone', 'neck', 'head') if any(key.startswith(f'{part}.') for key in weights)]
    try:
        model = _build(weights, parts)
        model.load_state_dict(dict(weights), strict=True, assign=True)
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        reason = f'{error} is missing' if isinstance(error, KeyError) else shorten_error(error)
        raise CheckpointError(f'the weights do not fit STViT ({arch}): {reason}') from error
    return f'STViT, {arch}; {count_learned(weights):,} learned parameters in {", ".join(parts)}'


def shorten_error(error: Exception) -> str:
    """Return the message of an error on one line; that of ``load_state_dict`` lists all keys."""
    text = ' '.join(str(error).split())
    return text if len(text) < 500 else f'{text[:500]} …'


def _build(weights: Mapping[str, Tensor], parts: list[str]) -> nn.Module:
    """Build a classifier on the meta device, where only the shapes matter."""
    size = find_size(weights)
    first = [f'backbone.stages.{i}.0' for i in range(len(size.depths))]
    hidden = [weights[f'{block}.ffn.fc1.weight'].shape[0] for block in first]
    # Hidden channels are the channels of the stage times the ratio, rounded down: any ratio between these fits.
    lowest = max(h / c for h, c in zip(hidden, size.channels, strict=True))
    highest = min((h + 1) / c for h, c in zip(hidden, size.channels, strict=True))
    arch = dict(
        channels=size.channels,
        depths=size.depths,
        num_heads=(1,) * len(size.depths),  # does not change a shape, nor does stoken_size
        layer_scale_init_value=tuple(float(f'{block}.gamma1' in weights) for block in first),
        mlp_ratio=(lowest + highest) / 2,
    )
    with torch.device('meta'):
        model = nn.Module()
        model.backbone = STViT(arch, in_channels=weights['backbone.patch_embed.convs.0.weight'].shape[1])
        if 'neck' in parts:
            model.neck = STViTNeck(size.channels[-1], out_channels=weights['neck.conv.weight'].shape[0])
        if 'head' in parts:
            classes, features = weights['head.fc.weight'].shape
            model.head = nn.Module()
            model.head.fc = nn.Linear(features, classes)
    return model


def count_learned(weights: Mapping[str, Tensor]) -> int:
    """Count the numbers in weights, without the statistics and counters of BatchNorm."""
    return sum(
        math.prod(value.shape)
        for key, value in weights.items()
        if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
    )


def write_checkpoint(content: Mapping, target: Path) -> dict[str, str]:
    """Write a checkpoint atomically.

    Returns:
        Rows for :func:`print_summary`: the file and its sha256.

    Raises:
        CheckpointError: The content does not load with ``weights_only=True``, or the file cannot be written.
    """
    data = serialize(content)
    sha256 = write_atomically(data, target)
    return {'written': f'{target} ({len(data) / 1e6:.1f} MB)', 'sha256': sha256}


def print_summary(checkpoint: Checkpoint, rows: Mapping[str, object]) -> None:
    """Print names and values in two columns, first the file that was read."""
    rows = {'read': f'{checkpoint.path}, weights: {checkpoint.where}', **rows}
    print_rows(rows)
