"""Stochastic depth that changes during training."""

from bisect import bisect_right
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmstvit.registry import HOOKS


@HOOKS.register_module()
class DropPathHook(Hook):
    """Set the drop path rate of every STViT in the model, in steps by epoch.

    The paper's Large trains with 0.4 for the first 260 epochs and 0.6 for the last 40:
    ``dict(type='mmstvit.DropPathHook', milestones=[260], rates=[0.4, 0.6])``. The rate depends on the epoch alone, so a
    resumed training goes on with the right one. The backbone's own ``drop_path_rate`` is overruled.

    Args:
        milestones: How many epochs are over when the next rate begins; increasing.
        rates: Stochastic depth of the last block, in [0, 1): one rate before the first milestone and one after each.

    Raises:
        ValueError: The milestones do not increase, a rate is out of range, or their numbers do not fit.
    """

    def __init__(self, milestones: Sequence[int], rates: Sequence[float]) -> None:
        for name, value in (('milestones', milestones), ('rates', rates)):
            if isinstance(value, str) or not isinstance(value, Sequence):
                raise ValueError(f'{name} must be a list of numbers, but got {value!r}.')
        if not all(type(m) is int and m > 0 for m in milestones) or list(milestones) != sorted(set(milestones)):
            raise ValueError(f'milestones must be positive, increasing numbers of epochs, but got {milestones!r}.')
        if len(rates) != len(milestones) + 1:
            raise ValueError(
                f'rates must have one number more than milestones ({len(milestones)}): one before the first and one '
                f'after each; but got {rates!r}.'
            )
        for i, rate in enumerate(rates):
            if type(rate) not in (int, float) or not 0 <= rate < 1:
                raise ValueError(f'rates[{i}] must be a number in [0, 1), but got {rate!r}.')
        self.milestones = list(milestones)
        self.rates = list(rates)

    def before_train(self, runner: Runner) -> None:
        """Refuse what the hook would do nothing for.

        Raises:
            ValueError: The model has no STViT, or the training has no epochs.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                f'DropPathHook counts epochs, but the training runs in {type(runner.train_loop).__name__}. Remove it '
                f'from custom_hooks, or set train_cfg.type to EpochBasedTrainLoop (with by_epoch=True).'
            )
        if not _backbones(runner):
            raise ValueError(
                f'DropPathHook sets the drop path of an STViT, but the model ({type(runner.model).__name__}) has none. '
                f'Remove it from custom_hooks.'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        rate = self.rates[bisect_right(self.milestones, runner.epoch)]
        for backbone in _backbones(runner):
            backbone.set_drop_path_rate(rate)
        runner.logger.info(f'drop path rate of epoch {runner.epoch + 1}: {rate}')


def _backbones(runner: Runner) -> list[nn.Module]:
    """Return the modules whose drop path rate can be set, wherever they are in the model."""
    return [module for module in runner.model.modules() if hasattr(module, 'set_drop_path_rate')]
