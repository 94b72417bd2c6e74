"""Linear layers and depthwise convolutions on (B, H, W, C) maps, through the fastest kernel of the device.

On CPU, PyTorch multiplies matrices with its BLAS library and convolves with oneDNN, which chooses instructions by what
the processor can do, not by who made it. Where the BLAS library is MKL and the processor is not Intel's, a 1×1
convolution is twice as fast as the same linear layer; elsewhere the two should be about equal.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

HAS_ONEDNN = torch.backends.mkldnn.is_available()


def runs_onednn(x: Tensor) -> bool:
    """Whether a convolution of ``x`` is oneDNN's: on CPU, in fp32 or bf16, the types that it computes everywhere."""
    if x.device.type != 'cpu' or x.dtype not in (torch.float32, torch.bfloat16):
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
    b, h, w, c = x.shape
    # One tall image: oneDNN's blocks do not cross images, and small maps would fill them badly. Reshaping and permuting
    # are views: (1, C, B·H, W) in channels_last format.
    maps = x.reshape(1, b * h, w, c).permute(0, 3, 1, 2)
    return F.conv2d(maps, weight[:, :, None, None], bias).permute(0, 2, 3, 1).view(b, h, w, -1)


def residual_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``x + dwconv(x)`` with zero padding: (B, H, W, C) and weights (C, 1, 3, 3) -> (B, H, W, C)."""
    maps = x.permute(0, 3, 1, 2)  # (B, C, H, W) in channels_last format
    if runs_onednn(x):
        # The identity is a kernel with a one in the middle: one pass over the map instead of two.
        weight = weight + F.pad(weight.new_ones(1, 1, 1, 1), (1, 1, 1, 1))
        maps = F.conv2d(maps, weight, bias, padding=1, groups=x.shape[3])
    else:
        maps = maps + F.conv2d(maps, weight, bias, padding=1, groups=x.shape[3])
    return maps.permute(0, 2, 3, 1)
