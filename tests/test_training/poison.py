"""A training in which one process reads a bad image: imported by a config."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Poison(Hook):
    """Puts NaN into the first image of iteration 7, counted from 1, of one process.

    Args:
        rank: Of which.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == 7 and get_rank() == self.rank:
            data_batch['inputs'] = data_batch['inputs'].float()
            data_batch['inputs'][0] = float('nan')
