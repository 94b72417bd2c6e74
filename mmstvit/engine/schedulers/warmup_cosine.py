"""Learning-rate schedule of the official ImageNet training."""

import math

from mmengine.optim import BaseOptimWrapper, _ParamScheduler
from torch.optim import Optimizer

from mmstvit.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupCosineLR(_ParamScheduler):
    """Linear warm-up, then cosine annealing, once per epoch as in the official implementation.

    It differs from MMEngine's ``LinearLR`` followed by ``CosineAnnealingLR`` in two ways. The cosine begins at epoch 0,
    below the warm-up. The whole curve lags by one epoch, because the official implementation steps its scheduler with
    the number of the epoch that has just ended: the first two epochs have the same rate.

    Args:
        optimizer: The optimizer, or its wrapper.
        end: Epochs of the run; MMEngine's runner sets it.
        warmup_epochs: Epochs of the warm-up.
        warmup_lr: Learning rate at the beginning of the warm-up.
        eta_min: Learning rate at the end of the cosine.
        last_step: Steps already made; -1 for none.
        verbose: Print the values.

    Raises:
        ValueError: The warm-up is not shorter than the run, or a rate is negative.
    """

    def __init__(
        self,
        optimizer: Optimizer | BaseOptimWrapper,
        end: int,
        warmup_epochs: int = 5,
        warmup_lr: float = 1e-6,
        eta_min: float = 1e-5,
        last_step: int = -1,
        verbose: bool = False,
    ) -> None:
        if not 0 <= warmup_epochs < end:
            raise ValueError(f'warmup_epochs must be at least 0 and less than end={end}, but got {warmup_epochs}.')
        if warmup_lr < 0 or eta_min < 0:
            raise ValueError(f'warmup_lr and eta_min must not be negative, but got {warmup_lr} and {eta_min}.')
        self.warmup_epochs = warmup_epochs
        self.warmup_lr = warmup_lr
        self.eta_min = eta_min
        super().__init__(optimizer, 'lr', end=end, last_step=last_step, verbose=verbose)

    def _get_value(self) -> list[float]:
        """Compute the rate of every group in closed form."""
        epoch = max(self.last_step - 1, 0)
        if epoch < self.warmup_epochs:
            done = epoch / self.warmup_epochs
            return [self.warmup_lr + done * (base - self.warmup_lr) for base in self.base_values]
        wave = (1 + math.cos(math.pi * epoch / self.end)) / 2
        return [self.eta_min + wave * (base - self.eta_min) for base in self.base_values]
