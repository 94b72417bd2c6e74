"""Drop path rate (stochastic depth) that changes during training."""

from bisect import bisect_right
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from mmstvit.errors import UserError
from mmstvit.registry import HOOKS


@HOOKS.register_module()
class DropPathHook(Hook):
    """Set the drop path rate of every backbone with ``set_drop_path_rate``, as STViT has, in steps by epoch.

    STViT-large trains with 0.4 for the first 260 epochs and 0.6 for the last 40:
    ``dict(type='mmstvit.DropPathHook', milestones=[260], rates=[0.4, 0.6])``. The rate depends only on the epoch, so a
    resumed run has the right one. It replaces the backbone's own ``drop_path_rate``.

    Args:
        milestones: Increasing numbers of epochs after which the next rate begins.
        rates: Drop path rate of the last block, in [0, 1): one before the first milestone and one after each.

    Raises:
        ValueError: The milestones do not increase, a rate is out of range, or the lengths do not match.
    """

    def __init__(self, milestones: Sequence[int], rates: Sequence[float]) -> None:
        are_epochs = isinstance(milestones, (list, tuple)) and all(type(m) is int and m > 0 for m in milestones)
        if not are_epochs or list(milestones) != sorted(set(milestones)):
            raise ValueError(f'milestones must be positive, increasing numbers of epochs, but got {milestones!r}.')
        are_rates = isinstance(rates, (list, tuple)) and all(type(r) in (int, float) and 0 <= r < 1 for r in rates)
        if not are_rates or len(rates) != len(milestones) + 1:
            raise ValueError(
                f'rates must be numbers in [0, 1), one before the first of {len(milestones)} milestones and one after '
                f'each, but got {rates!r}.'
            )
        self.milestones = list(milestones)
        self.rates = list(rates)

    def before_train(self, runner: Runner) -> None:
        """Check that the hook has an effect.

        Raises:
            UserError: The model has no drop path rate to set, or the run does not train by epochs.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise UserError(
                f'DropPathHook needs a run by epochs, but train_cfg builds {type(runner.train_loop).__name__}.',
                'Remove it from custom_hooks, or set train_cfg.by_epoch=True.',
            )
        if not _backbones(runner):
            raise UserError(
                f'DropPathHook needs a module with set_drop_path_rate (such as STViT), but '
                f'{type(runner.model).__name__} has none.',
                'Remove it from custom_hooks.',
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the rate of the epoch."""
        rate = self.rates[bisect_right(self.milestones, runner.epoch)]
        for backbone in _backbones(runner):
            backbone.set_drop_path_rate(rate)
        runner.logger.info(f'Drop path rate of epoch {runner.epoch + 1}: {rate}')


def _backbones(runner: Runner) -> list[nn.Module]:
    """Return all modules of the model whose drop path rate can be set."""
    return [module for module in runner.model.modules() if hasattr(module, 'set_drop_path_rate')]
