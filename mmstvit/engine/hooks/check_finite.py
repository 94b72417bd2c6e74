"""Stop a training run that produces NaN or Inf, before its weights or checkpoints do."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mmstvit.compat import step_is_skipped
from mmstvit.datasets import record_random
from mmstvit.errors import DivergedError, UserError
from mmstvit.fileio import is_local, resumable_checkpoints, unwrap
from mmstvit.registry import HOOKS

from .replay import all_finite, find_first_bad, first_bad, tensors_in

_NOT_FOUND = (
    'No NaN or Inf when the iteration is repeated: the fault is in another process or iteration of the step, or random.'
)


@HOOKS.register_module()
class CheckFiniteHook(Hook):
    """Stop a training run at the first NaN or Inf, and name the module that produced it.

    Gradients and loss are checked in every iteration; weights and BatchNorm statistics every ``interval`` iterations,
    after every epoch and before a validation; weights, averages and optimizer state before a checkpoint is written.
    After a bad gradient or loss, the iteration is repeated with the same random numbers. The error names the iteration,
    the loss terms, the first bad tensor, the images of the batch and the last good checkpoint.

    Each process of a distributed run checks for itself. All of them stop at the same step, because they share their
    gradients. If only one sees the fault, it ends, and the launcher ends the others.

    Args:
        enable: False turns all checks off; in our configs, set ``default_hooks.check_finite.enable=False``.
        interval: Iterations between two checks of the weights.
        max_skips: Number of consecutive steps that a loss scaler (float16) may skip, which is normal. Each halves the
            scale: 30 bring it from its initial 2^16 down to 2^-14.

    Raises:
        ValueError: ``enable`` is not a bool, or a number is not a positive integer.
    """

    priority = 'BELOW_NORMAL'  # after EMAHook, which puts the averages into a checkpoint; before CheckpointHook

    def __init__(self, enable: bool = True, interval: int = 50, max_skips: int = 30) -> None:
        if not isinstance(enable, bool):
            raise ValueError(f'enable of CheckFiniteHook must be True or False, but got {enable!r}.')
        for name, value in (('interval', interval), ('max_skips', max_skips)):
            if type(value) is not int or value < 1:
                raise ValueError(f'{name} of CheckFiniteHook must be a positive integer, but got {value!r}.')
        self.enable, self.interval, self.max_skips = enable, interval, max_skips
        self._model: nn.Module | None = None  # set while a run trains
        self._iteration = 'the first iteration'
        self._seen: dict[str, object] = {}  # of the iteration: inputs, random numbers and loss terms of the model
        self._hooks = contextlib.ExitStack()
        self._skips = 0

    def before_train(self, runner: Runner) -> None:
        """Find the model and the loss scaler; raises UserError if there are several optimizers."""
        if not self.enable:
            return
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise UserError(
                f'CheckFiniteHook supports one optimizer, but OptimWrapperDict has {len(runner.optim_wrapper)}.',
                'Turn it off: default_hooks.check_finite.enable=False.',
            )
        self._model = unwrap(runner.model)
        scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
        self._scaler = scaler if scaler is not None and scaler.is_enabled() else None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Watch the model and the optimizer for one iteration."""
        if self._model is None:
            return
        self._iteration = f'iteration {runner.iter + 1} (epoch {runner.epoch + 1})'  # wrong after the end of an epoch
        self._skipped = True  # until the optimizer is called
        model, see = self._model, self._seen.update
        for handle in (
            model.register_forward_pre_hook(lambda _, *call: see(call=call, reset=record_random()), with_kwargs=True),
            model.register_forward_hook(lambda _, args, losses: see(losses=losses)),
            runner.optim_wrapper.optimizer.register_step_pre_hook(partial(self._before_step, runner)),
        ):
            self._hooks.callback(handle.remove)

    def _before_step(self, runner: Runner, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        self._skipped = step_is_skipped(optimizer)
        self._check_gradients(runner)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Mapping | None = None
    ) -> None:
        """Check the loss, accumulated gradients and skipped steps, and from time to time the weights."""
        if self._model is None:
            return
        self._hooks.close()  # a model that is copied or evaluated has no hooks
        loss = (outputs or {}).get('loss')  # MMEngine has already waited for it, for the log
        if loss is not None and not torch.isfinite(torch.as_tensor(loss)):
            self._stop(runner, 'the loss is NaN or Inf', repeat=True)
        if not runner.optim_wrapper.should_update():
            self._check_gradients(runner)
        elif self._scaler is not None:
            self._skips = self._skips + 1 if self._skipped else 0
            if self._skips > self.max_skips:
                self._stop(runner, f'the loss scaler has skipped {self._skips} steps in a row', repeat=True)
        if self.every_n_train_iters(runner, self.interval) or self.is_last_train_iter(runner):
            self._check_weights(runner)
        self._seen.clear()  # frees the batch

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check weights, averaged weights and optimizer state; raises DivergedError."""
        parts = {key: checkpoint.get(key) for key in ('state_dict', 'ema_state_dict', 'optimizer')}
        if self._model is not None and (bad := first_bad(tensors_in(parts))):
            self._stop(runner, f'the checkpoint to be written has NaN or Inf, first in {bad}')

    def _check_gradients(self, runner: Runner) -> None:
        gradients = [weight.grad for weight in self._model.parameters() if weight.grad is not None]
        if self._scaler is None and not all_finite(gradients):  # a loss scaler checks them itself
            self._stop(runner, 'a gradient is NaN or Inf', repeat=True)

    def _check_weights(self, runner: Runner) -> None:
        weights = dict(tensors_in(self._model.state_dict())) if self._model is not None else {}
        if not all_finite(list(weights.values())):
            bad = first_bad(weights.items())
            self._stop(runner, f'the weights have NaN or Inf, though loss and gradients were finite; first in {bad}')

    after_train_epoch = before_val = _check_weights

    def _stop(self, runner: Runner, problem: str, repeat: bool = False) -> None:
        """Raise DivergedError; with ``repeat``, search for the origin of the fault in this iteration."""
        self._hooks.close()
        lines = [f'Training diverged in {self._iteration}: {problem}.']
        # In other wrappers all processes would have to repeat the iteration.
        is_whole = self._model is runner.model or isinstance(runner.model, DistributedDataParallel)
        if repeat and is_whole and 'losses' in self._seen:
            lines += self._search(runner)
        checkpoint = _last_good_checkpoint(runner)
        lines.append(f'Last good checkpoint (all weights finite): {checkpoint or "none"}.')
        again = f'--resume {shlex.quote(str(checkpoint))}' if checkpoint else 'starting again'
        error = DivergedError(
            '\n  '.join(lines),
            f'Before {again}, remove the cause: lower the '
            f'learning rate, clip gradients (optim_wrapper.clip_grad), train in bfloat16, or repair the data.',
        )
        runner.logger.error(error)
        raise error

    def _search(self, runner: Runner) -> Iterator[str]:
        """Yield the loss terms, the first bad tensor, and the images if the fault is in this iteration."""
        args, kwargs = self._seen['call']
        terms = dict(tensors_in(self._seen['losses']))
        yield f'Loss terms: {", ".join(f"{name}={term.mean().item():.6g}" for name, term in terms.items())}.'
        self._seen['reset']()
        try:
            bad = find_first_bad(runner, self._model, args, kwargs)
        except RuntimeError as error:  # such as too little memory; the rest of the message must not be lost
            bad = f'unknown, because the iteration could not be repeated: {error}'
        yield f'First bad tensor: {bad}.' if bad else _NOT_FOUND
        images = [getattr(sample, 'img_path', None) for sample in kwargs.get('data_samples') or ()]
        if any(images) and (bad or first_bad(terms.items())):
            yield f'Images of the batch: {", ".join(map(str, filter(None, images[:8])))}.'


def _last_good_checkpoint(runner: Runner) -> Path | None:
    """Find the run's newest local checkpoint that can be resumed and has only finite weights."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    folders = dict.fromkeys(str(folder) for folder in [runner.work_dir, *(hook.out_dir for hook in hooks)])
    for path, content in resumable_checkpoints(map(Path, filter(is_local, folders))):
        if not first_bad(tensors_in(content['state_dict'])):
            return path
    return None
