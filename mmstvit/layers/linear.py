"""Linear layers and depthwise convolutions on (B, H, W, C) maps."""

from torch import Tensor, nn

from mmstvit.ops import dense


class Linear(nn.Linear):
    """:class:`torch.nn.Linear` for maps, through the fastest kernel of the device."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, in_features) -> (B, H, W, out_features)"""
        return dense.linear(x, self.weight, self.bias)


class ResidualDepthwiseConv(nn.Conv2d):
    """``x + conv(x)`` with a depthwise 3×3 convolution.

    Args:
        channels: Channels C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)"""
        return dense.residual_dwconv(x, self.weight, self.bias)
