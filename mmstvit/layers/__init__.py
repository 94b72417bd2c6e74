"""The layers of STViT; maps are (B, H, W, C) between them."""

from .attention import SuperTokenAttention
from .block import STViTBlock, STViTFFN
from .checkpointing import checkpoint
from .embed import ConvStem, Downsample

__all__ = ['ConvStem', 'Downsample', 'STViTBlock', 'STViTFFN', 'SuperTokenAttention', 'checkpoint']
