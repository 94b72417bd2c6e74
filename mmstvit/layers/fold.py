"""Fold norms and layer scales, which are constant after training, into the layer beside them.

Everything is computed in fp64 and rounded once, to the dtype of the layer's weights.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def affine_of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return scale and shift per channel, in fp64, of a BatchNorm in evaluation mode."""
    scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - scale * norm.running_mean.double()


@torch.no_grad()
def fold_after(layer: nn.Linear | nn.Conv2d, scale: Tensor, shift: Tensor | None = None) -> None:
    """Change a layer so that ``layer(x)`` returns what ``scale * layer(x) + shift`` returned before.

    Args:
        layer: The layer, with a bias.
        scale: Per channel of the output.
        shift: Per channel of the output; None is 0.
    """
    scale = scale.double()
    bias = scale * layer.bias.double()
    # The output channel is the first dimension of both kinds of weights.
    layer.weight.copy_(layer.weight.double() * scale.view(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.copy_(bias if shift is None else bias + shift)


@torch.no_grad()
def fold_before(layer: nn.Linear, scale: Tensor, shift: Tensor) -> None:
    """Change a layer so that ``layer(x)`` returns what ``layer(scale * x + shift)`` returned before.

    Args:
        layer: The layer, with a bias.
        scale: Per input channel.
        shift: Per input channel.
    """
    weight = layer.weight.double()
    layer.bias.copy_(layer.bias.double() + weight @ shift)
    layer.weight.copy_(weight * scale)
