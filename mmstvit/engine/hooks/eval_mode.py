"""Training in evaluation mode."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmstvit.registry import HOOKS


@HOOKS.register_module()
class EvalModeHook(Hook):
    """Train in evaluation mode, as the official implementation does when it fine-tunes at 384².

    Dropout and drop path are off, and BatchNorm uses and keeps the statistics that it was loaded with. All weights
    still learn, those of BatchNorm included. Augmentation of the data, such as Mixup, stays on.
    """

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | tuple | list | None = None) -> None:
        """Set evaluation mode."""
        # In every iteration: MMEngine's loops set training mode after before_train_epoch and after a validation.
        if runner.model.training:
            runner.model.train(False)
