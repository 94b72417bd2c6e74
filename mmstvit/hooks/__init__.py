"""Hooks of the paper's training recipes."""

from .drop_path import DropPathHook
from .eval_mode import EvalModeHook

__all__ = ['DropPathHook', 'EvalModeHook']
