"""Strategies of distributed training."""

from .fsdp import FSDPStrategy

__all__ = ['FSDPStrategy']
