"""Hooks: of the paper's training recipes, for a training that stops and goes, and for one that diverges."""

from .check_finite import CheckFiniteHook
from .checkpoint import CheckpointHook
from .data_faults import DataFaultHook
from .drop_path import DropPathHook
from .eval_mode import EvalModeHook
from .seed import SeedHook

__all__ = [
    'CheckFiniteHook',
    'CheckpointHook',
    'DataFaultHook',
    'DropPathHook',
    'EvalModeHook',
    'SeedHook',
]
