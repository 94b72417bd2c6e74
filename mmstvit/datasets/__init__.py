"""Datasets and samplers: reproducible augmentation, unreadable files, checks of a config's data."""

from .guarded import GuardedDataset, skipped_files, skips
from .seeded import SeededDataset, SeededIndex, SeededSampler, record_random, seed_everything

__all__ = [
    'GuardedDataset',
    'SeededDataset',
    'SeededIndex',
    'SeededSampler',
    'record_random',
    'seed_everything',
    'skipped_files',
    'skips',
]
