"""Hooks: of the paper's training recipes, and for a training that stops and goes."""

from .checkpoint import CheckpointHook
from .drop_path import DropPathHook
from .eval_mode import EvalModeHook
from .seed import SeedHook

__all__ = ['CheckpointHook', 'DropPathHook', 'EvalModeHook', 'SeedHook']
