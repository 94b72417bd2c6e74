"""Hooks for the paper's recipes, for runs that can be killed and resumed, and for runs that diverge."""

from .check_data import CheckDataHook
from .check_finite import CheckFiniteHook
from .checkpoint import CheckpointHook
from .data_faults import DataFaultHook
from .drop_path import DropPathHook
from .eval_mode import EvalModeHook
from .seed import SeedHook
from .stop import StopHook

__all__ = [
    'CheckDataHook',
    'CheckFiniteHook',
    'CheckpointHook',
    'DataFaultHook',
    'DropPathHook',
    'EvalModeHook',
    'SeedHook',
    'StopHook',
]
