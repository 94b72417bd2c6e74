"""Random numbers that a resumed training repeats."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmstvit.datasets import seed_everything
from mmstvit.registry import HOOKS


@HOOKS.register_module()
class SeedHook(Hook):
    """Start the random numbers of every training iteration (drop path, dropout, Mixup, the samples of a detector's
    losses) from the training's seed, the iteration and the rank.

    MMEngine does not save the state of the random number generators. For the augmentation, which runs ahead in other
    processes, see :mod:`mmstvit.datasets.seeded`.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        # The last number tells these keys from those of the samples, which have three.
        seed_everything(runner.seed, runner.iter, get_rank(), 1)
