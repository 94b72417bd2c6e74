"""Training and testing of any OpenMMLab config: hooks, optimizers, schedulers, strategies, runner."""

from .tta import InstanceSegTTAModel

__all__ = ['InstanceSegTTAModel']
