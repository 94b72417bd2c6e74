"""The registered models: backbone and neck."""

from .neck import STViTNeck
from .stvit import STViT

__all__ = ['STViT', 'STViTNeck']
