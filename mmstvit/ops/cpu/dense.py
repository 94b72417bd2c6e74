"""Linear layers and depthwise convolutions on (B, H, W, C) maps with oneDNN.

On CPU, PyTorch multiplies matrices with its BLAS library and convolves with oneDNN. Where the BLAS library is MKL and
the processor is not made by Intel, a 1×1 convolution is twice as fast as the same linear layer; elsewhere the two are
about equal.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..super_token import layer_norm


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer as a 1×1 convolution: (B, H, W, C), weights (C', C) -> (B, H, W, C')."""
    if x.shape[0] == 0:  # a convolution needs at least one row
        return F.linear(x, weight, bias)
    return F.conv2d(_stack_images(x), weight[:, :, None, None], bias).permute(0, 2, 3, 1).view(*x.shape[:3], -1)


def linear_backward(grad: Tensor, x: Tensor, weight: Tensor, needs: Sequence[bool]) -> list[Tensor | None]:
    """Compute the gradients of :func:`linear` without its output.

    Args:
        grad: Gradient of the output, (B, H, W, C').
        x: Map, (B, H, W, C).
        weight: (C', C)
        needs: Flags for the gradients of the map, the weights and the bias.

    Returns:
        The three gradients; None where the flag is False.
    """
    maps, kernel = (_stack_images(grad), _stack_images(x)), weight[:, :, None, None]
    grads = torch.ops.aten.convolution_backward(
        *maps, kernel, [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, needs
    )
    grad_x, grad_weight, grad_bias = (g if need else None for g, need in zip(grads, needs, strict=True))
    if grad_x is not None:
        grad_x = grad_x.permute(0, 2, 3, 1).view(x.shape)
    return [grad_x, None if grad_weight is None else grad_weight.flatten(1), grad_bias]


def _stack_images(x: Tensor) -> Tensor:
    """Stack the images of (B, H, W, C) below each other: (1, C, B·H, W) in channels_last format.

    oneDNN's blocks do not cross images, and small maps would fill them badly. A contiguous map is not copied.
    """
    b, h, w, c = x.shape
    return x.reshape(1, b * h, w, c).permute(0, 3, 1, 2)


def residual_dwconv_norm(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Compute :func:`residual_dwconv` and LayerNorm; see :func:`mmstvit.ops.super_token.residual_dwconv_norm`."""
    x = residual_dwconv(x, weight, bias)
    return x, layer_norm(x, gamma, beta, eps)


def residual_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``x + dwconv3x3(x)`` with zero padding: (B, H, W, C), weights (C, 1, 3, 3) -> (B, H, W, C)."""
    # The identity is a kernel with a one in the middle: one pass over the map instead of two. In bf16 the weight in the
    # middle is rounded with it, to steps of 2^-8, an error of the size of the output's own rounding.
    weight = weight + F.pad(weight.new_ones(1, 1, 1, 1), (1, 1, 1, 1))
    maps = x.permute(0, 3, 1, 2)  # (B, C, H, W) in channels_last format
    return F.conv2d(maps, weight, bias, padding=1, groups=x.shape[3]).permute(0, 2, 3, 1)
