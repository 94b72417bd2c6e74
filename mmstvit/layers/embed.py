"""Patch embedding: the convolutional stem and the downsampling between stages."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .fold import affine_of, fold_after
from .linear import Conv2d
from .norm import BatchNorm2d


class ConvStem(nn.Module):
    """Four 3×3 convolutions, each followed by GELU and then BatchNorm, as in the official implementation.

    The norms stay in deploy form: the next convolution pads their output with zeros, which the shift of a norm does not
    reach. Folded into that convolution it would, and everything near the border would change.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels C of the first stage; the first two convolutions have C // 2.
    """

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        widths = [in_channels, embed_dims // 2, embed_dims // 2, embed_dims, embed_dims]
        strides = [2, 1, 2, 1]
        self.convs = nn.ModuleList(Conv2d(widths[i], widths[i + 1], 3, strides[i], padding=1) for i in range(4))
        self.norms = nn.ModuleList(BatchNorm2d(width) for width in widths[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) -> (B, ⌈H/4⌉, ⌈W/4⌉, C)."""
        x = x.contiguous(memory_format=torch.channels_last)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(F.gelu(conv(x)))
        return x.permute(0, 2, 3, 1)


class Downsample(nn.Module):
    """3×3 convolution with stride 2 and bias, then BatchNorm; an odd side rounds up.

    Args:
        in_channels: Channels of the stage before.
        out_channels: Channels of the stage after.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
        self.norm = BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) -> (B, ⌈H/2⌉, ⌈W/2⌉, C')."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)

    def switch_to_deploy(self) -> None:
        """Fold the norm into the convolution."""
        if not isinstance(self.norm, nn.Identity):
            fold_after(self.conv, *affine_of(self.norm))
            self.norm = nn.Identity()
