"""Linear layers and depthwise convolutions on (B, H, W, C) maps with oneDNN.

oneDNN's matrix product has no public name in PyTorch, whose linear layers call the BLAS library. It was the fastest of
three ways to compute them (docs/speed.md); for gradients PyTorch's own products are as fast.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmstvit.compat import ONEDNN_BF16, ONEDNN_LINEAR

from ..super_token import layer_norm


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer: (B, H, W, C), weights (C', C) -> (B, H, W, C')."""
    x, weight, bias = cast(x, weight, bias)
    return _Linear.apply(x, weight, bias) if _is_known(x, weight) else F.linear(x, weight, bias)


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer and GELU, in one pass if no gradient is needed."""
    x, weight, bias = cast(x, weight, bias)
    if torch.is_grad_enabled() or not _is_known(x, weight):
        return F.gelu(linear(x, weight, bias))
    return ONEDNN_LINEAR(x, weight, bias, 'gelu', [], 'none')


def cast(*tensors: Tensor | None) -> Sequence[Tensor | None]:
    """Cast to bf16 if that is the dtype of autocast, which does not know the operators below."""
    if not torch.is_autocast_enabled('cpu') or torch.get_autocast_dtype('cpu') != torch.bfloat16:
        return tensors
    return [None if tensor is None else tensor.bfloat16() for tensor in tensors]


def _is_known(x: Tensor, weight: Tensor) -> bool:
    """Return True if oneDNN's product takes a map and weights: of one dtype, not empty, and not in fp16."""
    if ONEDNN_LINEAR is None or x.dtype != weight.dtype or x.numel() == 0:
        return False
    if x.dtype == torch.bfloat16:
        return ONEDNN_BF16
    return x.dtype == torch.float32 and not torch.is_autocast_enabled('cpu')


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
    rows = grad.flatten(0, -2)
    return [
        grad @ weight if needs[0] else None,
        rows.t() @ x.flatten(0, -2) if needs[1] else None,
        rows.sum(0) if needs[2] else None,
    ]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return ONEDNN_LINEAR(x, weight, bias, 'none', [], '')

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(linear_backward(grad, *ctx.saved_tensors, ctx.needs_input_grad))


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
