"""Functions on tensors; torch and the standard library only."""

from . import naive, super_token

__all__ = ['naive', 'super_token']
