"""Prepare a run: checks of a config, and passes over it."""

from .checks import (
    check_checkpoint,
    check_data,
    check_parts,
    check_pretrained,
    check_weights,
    read_matching,
    type_name,
)
from .data import guard_data
from .restart import find_checkpoint, make_restartable

__all__ = [
    'check_checkpoint',
    'check_data',
    'check_parts',
    'check_pretrained',
    'check_weights',
    'find_checkpoint',
    'guard_data',
    'make_restartable',
    'read_matching',
    'type_name',
]
