"""The tail of the STViT classifier, between backbone and linear head."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmstvit.registry import MODELS


@MODELS.register_module()
class STViTNeck(BaseModule):
    """1×1 convolution → BatchNorm → SiLU → global average pooling.

    Args:
        in_channels: Channels of the backbone's last stage.
        out_channels: Channels of the pooled vector; 1024 in the release.
        init_cfg: Initialisation config of MMEngine; None keeps PyTorch's, as the release does.
    """

    def __init__(self, in_channels: int, out_channels: int = 1024, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        """Pool the last map: (B, C, H, W), or a tuple ending with it, -> ((B, out_channels),)"""
        x = inputs if isinstance(inputs, Tensor) else inputs[-1]
        x = F.silu(self.norm(self.conv(x)))
        return (x.mean(dim=(2, 3)),)
