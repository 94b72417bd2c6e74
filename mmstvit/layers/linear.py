"""Linear layers and convolutions."""

import torch
from torch import Tensor, nn

from mmstvit.ops import select

from .casting import CastsWeights


class Linear(CastsWeights, nn.Linear):
    """:class:`torch.nn.Linear` for maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, in_features) -> (B, H, W, out_features)."""
        return select(x).linear(x, *self.cast())


class Conv2d(CastsWeights, nn.Conv2d):
    """:class:`torch.nn.Conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C', H', W')."""
        return self._conv_forward(x, *self.cast())


class ResidualDepthwiseConv(Conv2d):
    """``x + conv(x)`` with a depthwise 3×3 convolution.

    Args:
        channels: Channels C.

    Attributes:
        residual: True if the layer adds its input; False once the kernel does (:meth:`switch_to_deploy`).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)
        self.residual = True

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) -> (B, H, W, C)."""
        if self.residual:
            return select(x).residual_dwconv(x, *self.cast())
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)  # (B, C, H, W) in channels_last format

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Add the identity to the kernel: a one in its middle."""
        if self.residual:
            self.weight[:, :, 1, 1] += 1
            self.residual = False
