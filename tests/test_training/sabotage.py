"""Kill a training run at the point in the environment variable ``DIE_AT``; configs import this file.

The process sends itself the signal, so that the point is exact: ``DIE_BY``, by default SIGKILL, after which nothing can
be cleaned up.
"""

import os
import signal

from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


def die() -> None:
    os.kill(os.getpid(), signal.Signals[os.environ.get('DIE_BY', 'SIGKILL')])


@HOOKS.register_module()
class Sabotage(Hook):
    """Kill the process at ``DIE_AT``, if it is set.

    ``train:7`` is after iteration 7 (counted from 1), ``val:2`` in the validation after epoch 2, ``write:3`` halfway
    through the file of checkpoint 3.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.point, _, number = os.environ.get('DIE_AT', '').partition(':')
        self.number = int(number or 0)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.point == 'train' and runner.iter + 1 == self.number:
            die()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if self.point == 'val' and runner.epoch == self.number:
            die()

    def before_save_checkpoint(self, runner, checkpoint) -> None:
        if self.point == 'write' and self.number in (checkpoint['meta']['epoch'], checkpoint['meta']['iter']):
            LocalBackend.put = write_half_and_die


def write_half_and_die(self: LocalBackend, obj: bytes, filepath: str) -> None:
    with open(filepath, 'wb') as file:
        file.write(obj[: len(obj) // 2])
        file.flush()
        os.fsync(file.fileno())
        die()
