"""Stop a training run that produces NaN or Inf, before its weights or checkpoints do."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mmstvit.compat import step_is_skipped
from mmstvit.errors import DivergedError, UserError
from mmstvit.fileio import is_local, resumable_checkpoints
from mmstvit.registry import HOOKS

from .replay import all_finite, find_first_bad, first_bad, record_random, tensors_in


@HOOKS.register_module()
class CheckFiniteHook(Hook):
    """Stop a training run at the first NaN or Inf, and name the module that produced it.

    Checked are

    - the gradients before every step of the optimizer, and the loss after every iteration;
    - weights and BatchNorm statistics every ``interval`` iterations, after every epoch, and before a validation;
    - weights, averaged weights and optimizer state before a checkpoint is written.

    After a bad gradient or loss, the iteration is repeated with the same random numbers, and every module is checked.
    The error names the iteration, the loss terms, the first bad tensor, the images of the batch and the last checkpoint
    whose weights are all finite. Steps that a loss scaler skips (float16) are normal, up to ``max_skips`` in a row.

    Every process of a distributed run checks for itself. They share their gradients, so all of them stop at the same
    step. If only one process sees the fault, it ends, and the launcher (torchrun, ``srun --kill-on-bad-exit``) ends the
    others. In another wrapper than DistributedDataParallel the module is not searched for.

    On a GPU every step launches one small kernel per parameter and waits once for the device. The cost of that has not
    been measured.

    Args:
        enable: False turns all checks off; in our configs, set ``default_hooks.check_finite.enable=False``.
        interval: Iterations between two checks of the weights.
        max_skips: Number of consecutive steps that a loss scaler may skip. Each halves the scale: 30 bring it from its
            initial 2^16 down to 2^-14.

    Raises:
        ValueError: ``enable`` is not a bool, or a number is not a positive integer.
    """

    priority = 'BELOW_NORMAL'  # after EMAHook, which puts the averages into a checkpoint; before CheckpointHook

    def __init__(self, enable: bool = True, interval: int = 50, max_skips: int = 30) -> None:
        if not isinstance(enable, bool):
            raise ValueError(f'enable of CheckFiniteHook must be True or False, but got {enable!r}.')
        for name, value in (('interval', interval), ('max_skips', max_skips)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f'{name} of CheckFiniteHook must be a positive integer, but got {value!r}.')
        self.enable = enable
        self.interval = interval
        self.max_skips = max_skips
        self._model: nn.Module | None = None  # set while a run trains
        self._skips = 0

    def before_train(self, runner: Runner) -> None:
        """Find the model.

        Raises:
            UserError: The run has several optimizers.
        """
        if not self.enable:
            return
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise UserError(
                f'CheckFiniteHook supports one optimizer, but the run has {len(runner.optim_wrapper)} '
                f'(OptimWrapperDict).',
                'Turn it off: default_hooks.check_finite.enable=False.',
            )
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._handles = []
        self._call = self._losses = None
        self._place = 'the first iteration'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        """Watch the model and the optimizer for one iteration."""
        if self._model is None:
            return
        self._place = f'iteration {runner.iter + 1} (epoch {runner.epoch + 1})'  # both have moved on after an epoch
        self._skipped = True  # until the optimizer is called
        # Removed after the iteration: a model that is copied or evaluated in between has no hooks.
        self._handles = [
            self._model.register_forward_pre_hook(self._keep_call, with_kwargs=True),
            self._model.register_forward_hook(self._keep_losses),
            runner.optim_wrapper.optimizer.register_step_pre_hook(partial(self._before_step, runner)),
        ]

    def _keep_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        self._call = args, kwargs, record_random()

    def _keep_losses(self, model: nn.Module, args: tuple, losses: object) -> None:
        self._losses = losses

    def _before_step(self, runner: Runner, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        if _loss_scaler(runner) is not None:  # has checked the gradients itself
            self._skipped = step_is_skipped(optimizer)
            return
        gradients = (p.grad for group in optimizer.param_groups for p in group['params'])
        if not all_finite([gradient for gradient in gradients if gradient is not None]):
            self._stop(runner, 'a gradient is NaN or Inf', replay=True)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Mapping | None = None
    ) -> None:
        """Check the loss and the steps skipped by a loss scaler, and from time to time the weights."""
        if self._model is None:
            return
        self._remove_handles()
        loss = (outputs or {}).get('loss')  # MMEngine has already waited for it, for the log
        if loss is not None and not torch.isfinite(torch.as_tensor(loss)):
            self._stop(runner, 'the loss is NaN or Inf', replay=True)
        scaler = _loss_scaler(runner)
        if scaler is not None and runner.optim_wrapper.should_update():
            self._skips = self._skips + 1 if self._skipped else 0
            if self._skips > self.max_skips:
                self._stop(
                    runner,
                    f'the loss scaler has skipped {self._skips} steps in a row because gradients are NaN or Inf; its '
                    f'scale is {scaler.get_scale():.3g}',
                    replay=True,
                )
        # MMEngine's CheckpointHook removes an old checkpoint before it writes a new one: check the weights before it.
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, CheckpointHook) and not hook.by_epoch]
        due = any(self.every_n_train_iters(runner, interval) for interval in [self.interval, *intervals])
        if due or self.is_last_train_iter(runner):
            self._check_weights(runner)
        self._call = self._losses = None  # frees the batch

    def after_train_epoch(self, runner: Runner) -> None:
        """Check the weights."""
        self._check_weights(runner)

    def before_val(self, runner: Runner) -> None:
        """Check the weights."""
        self._check_weights(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to write NaN or Inf, be it weights, averaged weights or optimizer state.

        Raises:
            DivergedError: The checkpoint has NaN or Inf.
        """
        if self._model is None:
            return
        parts = {'': checkpoint['state_dict'], 'ema_state_dict': checkpoint.get('ema_state_dict')}
        parts['optimizer.state'] = (checkpoint.get('optimizer') or {}).get('state')
        bad = first_bad(pair for name, part in parts.items() for pair in tensors_in(part, name))
        if bad is not None:
            self._stop(runner, f'the checkpoint to be written has NaN or Inf, first in {bad}')

    def _check_weights(self, runner: Runner) -> None:
        if self._model is None:  # turned off, or a validation alone
            return
        weights = dict(tensors_in({**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}))
        if not all_finite(list(weights.values())):
            self._stop(
                runner,
                f'the weights have NaN or Inf, though loss and gradients were finite; first in '
                f'{first_bad(weights.items())}',
            )

    def _remove_handles(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _stop(self, runner: Runner, problem: str, replay: bool = False) -> None:
        """Raise DivergedError; with ``replay``, repeat the iteration to find where the fault began."""
        self._remove_handles()
        lines = [f'Training diverged in {self._place}: {problem}.']
        if replay and self._call is not None:
            args, kwargs, _ = self._call
            lines += [f'Loss terms: {", ".join(_loss_terms(self._losses))}.', self._search(runner)]
            images = list(_image_paths([args, kwargs]))[:8]
            lines += [f'Images of the batch: {", ".join(images)}.'] if images else []
        checkpoint = _last_good_checkpoint(runner)
        if checkpoint is None:
            lines.append('This run has no checkpoint with finite weights.')
            back = 'starting again'
        else:
            lines.append(f'Last good checkpoint (all weights finite): {checkpoint}.')
            back = f'--resume {checkpoint}'
        error = DivergedError(
            '\n'.join(lines),
            f'Before {back}, remove the cause: lower the learning rate, clip gradients (optim_wrapper.clip_grad), use '
            f'bfloat16 instead of float16, or repair the data.',
        )
        runner.logger.error(error)
        raise error

    def _search(self, runner: Runner) -> str:
        if is_model_wrapper(runner.model) and not isinstance(runner.model, DistributedDataParallel):
            return f'The module is not searched for in a {type(runner.model).__name__}.'
        args, kwargs, restore_random = self._call
        scaler = _loss_scaler(runner)
        restore_random()
        try:
            bad = find_first_bad(
                self._model,
                args,
                kwargs,
                context=runner.optim_wrapper.optim_context(runner.model),
                scale=1.0 if scaler is None else scaler.get_scale(),
            )
        except RuntimeError as error:  # such as too little memory; the rest of the message must not be lost
            return f'The search for the first bad tensor failed: {error}'
        if bad is not None:
            return f'First bad tensor: {bad}.'
        others = 'came from another process, or ' if get_world_size() > 1 else ''
        return f'All values were finite when the iteration was repeated: the fault {others}does not occur every time.'


def _loss_scaler(runner: Runner) -> torch.amp.GradScaler | None:
    """Return the loss scaler if the run has one that is enabled."""
    scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _loss_terms(losses: object) -> Iterator[str]:
    for name, tensor in tensors_in(losses):
        yield f'{name}={tensor.mean().item():.6g}'


def _image_paths(inputs: object) -> Iterator[str]:
    """Yield the paths of the images in a model's inputs, as far as the data samples know them."""
    if isinstance(inputs, (Mapping, list, tuple)):
        for part in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from _image_paths(part)
    elif getattr(inputs, 'img_path', None):
        yield str(inputs.img_path)


def _last_good_checkpoint(runner: Runner) -> Path | None:
    """Find the run's newest local checkpoint that can be resumed and has only finite weights."""
    folders = [runner.work_dir, *(hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook))]
    folders = [Path(folder) for folder in dict.fromkeys(folders) if folder and is_local(str(folder))]
    contents = resumable_checkpoints(folders)
    return next((path for path, content in contents if first_bad(tensors_in(content['state_dict'])) is None), None)
