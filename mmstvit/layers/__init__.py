"""The layers of STViT; maps are (B, H, W, C) between them."""

from .attention import SuperTokenAttention
from .block import STViTBlock, STViTFFN
from .casting import cast_weights
from .checkpointing import checkpoint
from .drop_path import draw_drop_path
from .embed import ConvStem, Downsample
from .norm import count_batches

__all__ = [
    'ConvStem',
    'Downsample',
    'STViTBlock',
    'STViTFFN',
    'SuperTokenAttention',
    'cast_weights',
    'checkpoint',
    'count_batches',
    'draw_drop_path',
]
