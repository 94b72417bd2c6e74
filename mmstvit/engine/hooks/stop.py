"""Hook that ends a training run in order when it is interrupted."""

import atexit
import multiprocessing
import shlex
import signal
from collections.abc import Callable
from functools import partial

import torch
from mmengine.dist import all_reduce, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmstvit.interrupts import Interrupted, Interrupts
from mmstvit.registry import HOOKS

from .checkpoint import CheckpointHook


@HOOKS.register_module()
class StopHook(Hook):
    """Save a checkpoint at Ctrl+C or SIGTERM, and end the run; ``--resume`` continues with the next iteration.

    It is written after the iteration, with accumulated gradients after the step, and in a validation after its end,
    unless there is one of this iteration. A second signal ends the run at once. The checkpoint hook must be
    :class:`CheckpointHook` of mmstvit; else the run ends with the last checkpoint that there is.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._interrupts = Interrupts()

    def before_train(self, runner: Runner) -> None:
        """Begin to note signals. Workers ignore them: Ctrl+C and schedulers send them to all processes."""
        self._interrupts.__enter__()
        atexit.register(_end_workers)
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loop.dataloader.worker_init_fn = partial(_ignore_signals, loop.dataloader.worker_init_fn)

    def after_train(self, runner: Runner) -> None:
        """Leave signals as they were."""
        self._interrupts.__exit__()

    def after_train_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Stop if there was a signal in any process."""
        if getattr(runner.optim_wrapper, 'should_update', lambda: True)():
            self._stop(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, *_: object, **__: object) -> None:
        """Stop if there was a signal and nothing is to be saved: averaged weights are in the model now."""
        hook = _find_checkpoint_hook(runner)
        if hook is None or hook.saved == runner.iter:
            self._stop(runner, runner.iter)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Stop if there was a signal in any process."""
        self._stop(runner, runner.iter)

    def _stop(self, runner: Runner, done: int) -> None:
        number = self._interrupts.number
        if get_world_size() > 1:
            numbers = torch.tensor(number, device=next(runner.model.parameters()).device)
            all_reduce(numbers, 'max')
            number = int(numbers)
        if not number:
            return
        hook, saved = _find_checkpoint_hook(runner), ''
        if hook is not None:
            if hook.saved != done:
                hook.save_now(runner, dict(epoch=runner.epoch, iter=done))
            saved = f'{done} iterations are done and saved in {hook.last_ckpt}. '
        self._interrupts.__exit__()
        again = f'{saved}To go on: --work-dir {shlex.quote(runner.work_dir)} --resume'
        raise Interrupted(number, again if is_main_process() else '')


def _ignore_signals(init: Callable[[int], None] | None, worker: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if init is not None:
        init(worker)


def _end_workers() -> None:
    """End workers before Python does, which waits for them after a SIGTERM that they ignore."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would raise an error
    for worker in multiprocessing.active_children():
        worker.kill()


def _find_checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
