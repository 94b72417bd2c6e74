"""Optimisation: what MMEngine does not bring."""

from .amp import CPUAmpOptimWrapper
from .scheduler import WarmupCosineLR

__all__ = ['CPUAmpOptimWrapper', 'WarmupCosineLR']
