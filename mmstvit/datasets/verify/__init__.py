"""Verify the data sets of a config: the work of ``tools/misc/verify_dataset.py``."""

from .findings import Finding, Report, Split
from .run import verify

__all__ = ['Finding', 'Report', 'Split', 'verify']
