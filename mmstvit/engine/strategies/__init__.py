"""Strategies for distributed training."""

from .fsdp import FSDPStrategy

__all__ = ['FSDPStrategy']
