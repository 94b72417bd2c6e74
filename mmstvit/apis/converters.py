"""What the tools in tools/model_converters have in common: proof that weights fit, and a summary for the user."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mmstvit.checkpoint import measure, recognise_arch
from mmstvit.errors import CheckpointError
from mmstvit.models import STViT, STViTNeck


def verify_classifier(weights: Mapping[str, Tensor]) -> tuple[str, list[str]]:
    """Load weights strictly into the classifier that their shapes say they are for.

    Args:
        weights: Weights in the layout of our classifier: ``backbone.…``, ``neck.…``, ``head.fc.…``; neck and head, or
            the head alone, may be missing altogether.

    Returns:
        The architecture, by name or by its channels and depths, and the parts that are there.

    Raises:
        CheckpointError: Something is missing, left over or of another shape.
    """
    arch = recognise_arch(weights)
    if arch is None:
        raise CheckpointError('no STViT is in the weights: its blocks are missing, or those of its first stages.')
    parts = [part for part in ('backbone', 'neck', 'head') if any(key.startswith(f'{part}.') for key in weights)]
    try:
        model = _build(weights, parts)
        model.load_state_dict(dict(weights), strict=True, assign=True)
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        what = f'{error} is missing' if isinstance(error, KeyError) else ' '.join(str(error).split())
        what = what if len(what) < 500 else f'{what[:500]} …'  # it lists all of the keys
        raise CheckpointError(f'the weights do not fit STViT ({arch}): {what}') from error
    return arch, parts


def _build(weights: Mapping[str, Tensor], parts: list[str]) -> nn.Module:
    """A classifier on the meta device, of which the shapes alone matter: no memory, no time to initialise it."""
    size = measure(weights)
    first = [f'backbone.stages.{i}.0' for i in range(len(size.depths))]
    hidden = [weights[f'{block}.ffn.fc1.weight'].shape[0] for block in first]
    # Hidden channels are those of the stage times the ratio, rounded down: any ratio between these will do.
    lowest = max(h / c for h, c in zip(hidden, size.channels, strict=True))
    highest = min((h + 1) / c for h, c in zip(hidden, size.channels, strict=True))
    arch = dict(
        channels=size.channels,
        depths=size.depths,
        num_heads=(1,) * len(size.depths),  # in no shape, as is stoken_size
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


def count(weights: Mapping[str, Tensor]) -> int:
    """Numbers in weights, without the statistics and counters of BatchNorm, which are not learned."""
    return sum(
        math.prod(value.shape)
        for key, value in weights.items()
        if not key.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
    )


def summarize(rows: Mapping[str, object]) -> str:
    """Lines of a name and a value, the values below each other."""
    width = max(map(len, rows))
    return '\n'.join(f'  {name:<{width}}  {value}' for name, value in rows.items())
