"""Data loading: what MMEngine does not bring."""

from .seeded import SeededDataset, SeededIndex, SeededSampler, seed_everything

__all__ = ['SeededDataset', 'SeededIndex', 'SeededSampler', 'seed_everything']
