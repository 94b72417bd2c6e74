"""Functions on tensors; they need torch alone, and Triton where it is used."""

from . import backend, naive, super_token
from .backend import describe, get_backend, select, set_backend, use_backend

__all__ = [
    'backend',
    'describe',
    'get_backend',
    'naive',
    'select',
    'set_backend',
    'super_token',
    'use_backend',
]
