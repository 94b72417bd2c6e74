"""Checkpoints: the published layout and ours, and reading files without executing them."""

from .errors import CheckpointError
from .layout import convert_official

__all__ = ['CheckpointError', 'convert_official']
