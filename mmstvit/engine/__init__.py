"""Train and test any OpenMMLab config: hooks, optimizers, schedulers, runner, test-time augmentation."""

from .tta import InstanceSegTTAModel

__all__ = ['InstanceSegTTAModel']
