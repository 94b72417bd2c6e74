from .attention import SuperTokenAttention
from .block import STViTBlock, STViTFFN
from .embed import ConvStem, Downsample

__all__ = ['ConvStem', 'Downsample', 'STViTBlock', 'STViTFFN', 'SuperTokenAttention']
