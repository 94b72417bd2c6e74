"""Data loading: what MMEngine does not bring."""

from .guarded import GuardedDataset, skipped_files, skips
from .seeded import SeededDataset, SeededIndex, SeededSampler, seed_everything

__all__ = [
    'GuardedDataset',
    'SeededDataset',
    'SeededIndex',
    'SeededSampler',
    'seed_everything',
    'skipped_files',
    'skips',
]
