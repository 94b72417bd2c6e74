"""Linear layers and depthwise convolutions on (B, H, W, C) maps, through the fastest kernel of the device.

On CPU, PyTorch multiplies matrices with its BLAS library and convolves with oneDNN, which chooses instructions by what
the processor can do, not by who made it. Where the BLAS library is MKL and the processor is not Intel's, a 1×1
convolution is twice as fast as the same linear layer; elsewhere the two should be about equal.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available()
# Below AVX-512, convolutions fall back to something slow, and plain products raise an error.
HAS_BF16 = HAS_ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def runs_onednn(x: Tensor) -> bool:
    """Whether oneDNN can compute with ``x``: on CPU, in fp32, and in bf16 where the processor has the instructions."""
    if x.device.type != 'cpu' or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    if x.dtype == torch.bfloat16 and not HAS_BF16:
        return False
    # The compiler cannot trace the switch; who compiles for a CPU has not turned oneDNN off.
    return HAS_ONEDNN and (torch.compiler.is_compiling() or torch.backends.mkldnn.enabled)


def is_traced() -> bool:
    """Whether a compiler or tracer looks on; it would unroll a loop over pieces of a map for the size it sees."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """:func:`torch.nn.functional.linear` of a map: (B, H, W, C) and weights (C', C) -> (B, H, W, C')."""
    if not runs_onednn(x) or len(x) == 0:  # no image is no tall image either
        return F.linear(x, weight, bias)
    return F.conv2d(_tall(x), weight[:, :, None, None], bias).permute(0, 2, 3, 1).view(*x.shape[:3], -1)


def linear_backward(grad: Tensor, x: Tensor, weight: Tensor, needs: Sequence[bool]) -> list[Tensor | None]:
    """Gradients of :func:`linear` where :func:`runs_onednn`, without its output.

    Args:
        grad: Gradient of the output, (B, H, W, C').
        x: Map, (B, H, W, C).
        weight: (C', C)
        needs: Whether the gradient of the map, of the weights and of the bias is wanted.

    Returns:
        The three gradients, None for what is not wanted.
    """
    grads = torch.ops.aten.convolution_backward(
        _tall(grad), _tall(x), weight[:, :, None, None], [len(weight)], [1, 1], [0, 0], [1, 1], False, [0, 0], 1, needs
    )
    grad_x, grad_weight, grad_bias = (g if need else None for g, need in zip(grads, needs, strict=True))
    if grad_x is not None:
        grad_x = grad_x.permute(0, 2, 3, 1).view(x.shape)
    return [grad_x, None if grad_weight is None else grad_weight.flatten(1), grad_bias]


def _tall(x: Tensor) -> Tensor:
    """The images of (B, H, W, C), one below the other, as an NCHW map: (1, C, B·H, W) in channels_last format.

    oneDNN's blocks do not cross images, and small maps would fill them badly. For a contiguous map it is a view.
    """
    b, h, w, c = x.shape
    return x.reshape(1, b * h, w, c).permute(0, 3, 1, 2)


def residual_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x + dwconv(x)`` with zero padding: (B, H, W, C) and weights (C, 1, 3, 3) -> (B, H, W, C)."""
    maps = x.permute(0, 3, 1, 2)  # (B, C, H, W) in channels_last format
    if runs_onednn(x):
        # The identity is a kernel with a one in the middle: one pass over the map instead of two. In bf16 the weight in
        # the middle is rounded with it, to steps of 2^-8, an error of the size of the output's own rounding.
        weight = weight + F.pad(weight.new_ones(1, 1, 1, 1), (1, 1, 1, 1))
        maps = F.conv2d(maps, weight, bias, padding=1, groups=x.shape[3])
    else:
        maps = maps + F.conv2d(maps, weight, bias, padding=1, groups=x.shape[3])
    return maps.permute(0, 2, 3, 1)
