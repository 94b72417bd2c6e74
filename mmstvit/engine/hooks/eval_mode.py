"""Training in evaluation mode."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmstvit.registry import HOOKS


@HOOKS.register_module()
class EvalModeHook(Hook):
    """Keep the whole model in evaluation mode while it trains, as the release does when it fine-tunes at 384².

    Nothing is dropped, be it activations or paths, and every BatchNorm normalises by the statistics it came with and
    keeps them; weights, BatchNorm's own among them, learn as ever. Mixup and the like stay on: they belong to the data.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None) -> None:
        # Not once an epoch: MMEngine's loops set the training mode after that hook, and again after a validation.
        if runner.model.training:
            runner.model.train(False)
