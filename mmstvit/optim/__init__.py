"""Optimisation: what MMEngine does not bring."""

from .amp import CPUAmpOptimWrapper

__all__ = ['CPUAmpOptimWrapper']
