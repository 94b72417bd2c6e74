"""Predict images and videos without annotations, with the model of a checkpoint."""

from .run import Summary, predict

__all__ = ['Summary', 'predict']
