"""The registered models: backbone and neck."""

from .ablations import STViTAblation, STViTAblationNeck
from .neck import STViTNeck
from .stvit import STViT

__all__ = ['STViT', 'STViTAblation', 'STViTAblationNeck', 'STViTNeck']
