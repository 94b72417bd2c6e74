"""Optimisation: what MMEngine does not bring."""

from .amp import CPUAmpOptimWrapper
from .layer_decay import LayerDecayOptimWrapperConstructor
from .scheduler import WarmupCosineLR

__all__ = ['CPUAmpOptimWrapper', 'LayerDecayOptimWrapperConstructor', 'WarmupCosineLR']
