"""Hook that seeds each iteration, so that a resumed run repeats its random numbers."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmstvit.datasets import seed_everything
from mmstvit.registry import HOOKS


@HOOKS.register_module()
class SeedHook(Hook):
    """Seed every training iteration by the run's seed, the iteration and the rank.

    Drop path, dropout, Mixup and the sampling of a detector's losses are then the same in a resumed run: MMEngine does
    not save the state of the random number generators. Augmentation runs ahead in the dataloader's workers; for it see
    :mod:`mmstvit.datasets.seeded`.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Seed the generators of Python, NumPy and PyTorch."""
        # The fourth number distinguishes these keys from those of the samples, which have three.
        seed_everything(runner.seed, runner.iter, get_rank(), 1)
