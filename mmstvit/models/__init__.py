from .neck import STViTNeck
from .stvit import STViT
from .tta import InstanceSegTTAModel

__all__ = ['InstanceSegTTAModel', 'STViT', 'STViTNeck']
