"""Spoil an image of one process; configs import this file."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Poison(Hook):
    """Put NaN into the first image of iteration 3, counted from 1.

    Args:
        rank: Rank of the process.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter + 1 == 3 and get_rank() == self.rank:
            data_batch['inputs'] = data_batch['inputs'].float()
            data_batch['inputs'][0] = float('nan')
