"""A training that stops when its numbers are no longer numbers, before they reach a checkpoint."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import torch
from mmengine.dist import get_world_size
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from mmstvit.errors import CheckpointError, DivergedError
from mmstvit.fileio import check_finite, resumable_checkpoints
from mmstvit.registry import HOOKS

from .replay import Call, describe, find_culprit, first_bad, tensors_in


@HOOKS.register_module()
class CheckFiniteHook(Hook):
    """Stop a training that has diverged, and say where NaN or Inf came from.

    What is looked at, and when:

    ============================  ============================  =======================================================
    what                          on CPU                        on a GPU
    ============================  ============================  =======================================================
    loss                          every iteration               every iteration, after MMEngine has read it for its log
    gradients, before a step      every step                    every step; the answer is read every ``interval``
    weights, BatchNorm's          every ``interval`` iterations, at the end of an epoch, before a validation and
    statistics                    before a checkpoint
    checkpoint                    before it is written: weights, averaged weights, moments of the optimizer
    ============================  ============================  =======================================================

    On a GPU nothing waits for the device but what comes every ``interval`` iterations. Until the answer is read, a
    fused optimizer (``fused=True``) makes no step with bad gradients, so that the weights stay as they were.

    When something is bad, the forward and backward pass of the batch is repeated, with the same random numbers, and
    every module is looked at. The message names the iteration, the loss terms, the first module and tensor, the images
    and the last checkpoint whose weights are all finite.

    The steps that a loss scaler skips in float16 are none of that, as long as they are not too many in a row.

    In a distributed training every process looks for itself, without talking to the others: gradients are the same
    everywhere, so that all of them stop at the same step. What one process alone sees ends that process, and its
    launcher (torchrun, or srun with ``--kill-on-bad-exit``) ends the others.

    Args:
        enable: Whether to do anything of this: ``default_hooks.check_finite.enable=False`` turns it off in our configs.
        interval: Iterations between two looks at what is not looked at every time.
        max_skips: So many steps in a row may be skipped by the loss scaler. Each halves the scale: 30 bring it from
            2^16, where it begins, to 2^-14.

    Raises:
        ValueError: A number is not a positive integer, or ``enable`` is no truth value.
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
        self._model: nn.Module | None = None  # until a training begins
        self._handles: list[RemovableHandle] = []
        self._call: Call | None = None
        self._losses: object = None

    def before_train(self, runner: Runner) -> None:
        """Get to know the model.

        Raises:
            ValueError: There are several optimizers.
        """
        if not self.enable:
            return
        if isinstance(runner.optim_wrapper, OptimWrapperDict):
            raise ValueError(
                f'CheckFiniteHook looks after one optimizer, but the training has '
                f'{len(runner.optim_wrapper)} (OptimWrapperDict). Turn it off: default_hooks.check_finite.enable=False.'
            )
        self._model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._place = 'no iteration'
        self._device = next(self._model.parameters()).device
        self._first_bad_step = torch.full((), -1, dtype=torch.int64, device=self._device)
        self._skips = torch.zeros((), device=self._device)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        if self._model is None:
            return
        self._place = (
            f'iteration {runner.iter + 1} (epoch {runner.epoch + 1})'  # at the end of an epoch both have moved on
        )
        # For this iteration alone: a model that is copied, compiled or evaluated between two has no hooks.
        optimizer = runner.optim_wrapper.optimizer
        self._handles = [
            self._model.register_forward_pre_hook(self._keep_call, with_kwargs=True),
            self._model.register_forward_hook(self._keep_losses),
            optimizer.register_step_pre_hook(partial(self._before_step, runner)),
            optimizer.register_step_post_hook(_forget_found_inf),
        ]
        self._stepped = False
        self._lost = False
        self._found_inf = None

    def _keep_call(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        self._call = Call(args, kwargs, self._device)

    def _keep_losses(self, model: nn.Module, args: tuple, losses: object) -> None:
        self._losses = losses

    def _before_step(self, runner: Runner, optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
        self._stepped = True
        if _scaler(runner) is not None:
            # It has looked at the gradients. A fused optimizer is told the result, others are not called if it is bad.
            self._found_inf = getattr(optimizer, 'found_inf', None)
            return
        parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
        gradients = [p.grad for p in parameters if p.grad is not None and p.grad.numel()]  # shards may be empty
        if not gradients:
            return
        bad = ~_all_finite(gradients) & (self._first_bad_step < 0)
        self._first_bad_step = torch.where(bad, runner.iter, self._first_bad_step)
        if self._looks(runner):
            self._check_gradients(runner)
        elif getattr(optimizer, '_step_supports_amp_scaling', False):
            optimizer.found_inf = (self._first_bad_step >= 0).float()
        else:
            self._lost = True  # should the gradients be bad, the weights will be

    def _check_gradients(self, runner: Runner) -> None:
        iteration = int(self._first_bad_step)
        if iteration == runner.iter:
            self._stop(runner, 'a gradient is not finite')
        elif iteration >= 0:
            self._stop(
                runner,
                f'a gradient was not finite in iteration {iteration + 1}, whose batch is gone (set '
                f'default_hooks.check_finite.interval=1 to stop there)',
                replay=False,
            )

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: Mapping | None = None
    ) -> None:
        if self._model is None:
            return
        self._remove_hooks()
        # MMEngine has just read these numbers: the device has nothing left to do, nobody waits for it here.
        loss = (outputs or {}).get('loss')
        if loss is not None and not torch.isfinite(torch.as_tensor(loss)):
            self._stop(runner, 'the loss is not finite')
        self._count_skips(runner)
        if self._looks(runner) and self._skips > self.max_skips:
            self._stop(
                runner,
                f'the loss scaler has skipped {int(self._skips)} steps in a row because of gradients that are not '
                f'finite; its scale is {_scaler(runner).get_scale():.3g}',
            )
        if self.every_n_train_iters(runner, self.interval) or self._saves(runner):
            self._check_weights(runner)
        self._call = self._losses = None  # the batch

    def _count_skips(self, runner: Runner) -> None:
        if _scaler(runner) is None or not runner.optim_wrapper.should_update():
            return
        if self._found_inf is None:
            self._skips = self._skips * 0 if self._stepped else self._skips + 1
        else:
            self._skips = (self._skips + 1) * (self._found_inf.to(self._device) > 0)

    def after_train_epoch(self, runner: Runner) -> None:
        self._check_weights(runner)

    def before_val(self, runner: Runner) -> None:
        self._check_weights(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to write what is not finite: weights, averaged weights and the optimizer's moments.

        Raises:
            DivergedError: Something is not finite.
        """
        if self._model is None:
            return
        bad = first_bad(_saved(checkpoint))
        if bad is not None:
            self._stop(runner, f'the checkpoint about to be written is not finite, first in {bad}', replay=False)

    def _looks(self, runner: Runner) -> bool:
        """Whether to wait for the device in this iteration."""
        return not self._defers() or self.every_n_train_iters(runner, self.interval) or self._saves(runner)

    def _defers(self) -> bool:
        return self._device.type != 'cpu'

    def _saves(self, runner: Runner) -> bool:
        """Whether a checkpoint is due after this iteration; MMEngine's hook removes an old one before it."""
        return any(
            isinstance(hook, CheckpointHook)
            and not hook.by_epoch
            and (
                self.every_n_train_iters(runner, hook.interval) or (hook.save_last and self.is_last_train_iter(runner))
            )
            for hook in runner.hooks
        )

    def _check_weights(self, runner: Runner) -> None:
        if self._model is None:  # turned off, or a validation without a training
            return
        weights = dict(tensors_in({**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}))
        if not _all_finite([tensor for tensor in weights.values() if tensor.numel()]):
            self._stop(
                runner,
                f'the weights are not finite, though loss and gradients were; first in {first_bad(weights.items())}',
                replay=False,
            )

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _stop(self, runner: Runner, what: str, replay: bool = True) -> None:
        """Raise DivergedError: ``what`` happened; ``replay`` says whether the batch at hand can show where."""
        self._remove_hooks()
        lines = [f'the training has diverged in {self._place}: {what}.']
        if replay and self._call is not None:
            lines.append(f'Loss terms: {", ".join(_loss_terms(self._losses))}.')
            lines.append(self._search(runner))
            images = _image_paths((self._call.args, self._call.kwargs))
            if images:
                lines.append(f'Images of the batch: {", ".join(images)}.')
        lines.append(_resume_line(runner))
        message = '\n'.join(lines)
        runner.logger.error(message)
        raise DivergedError(message)

    def _search(self, runner: Runner) -> str:
        if isinstance(runner.model, FullyShardedDataParallel):
            return 'The model is sharded, which one process cannot search for the module: repeat it without FSDP.'
        scaler = _scaler(runner)
        try:
            culprit = find_culprit(
                self._model,
                self._call,
                context=runner.optim_wrapper.optim_context(runner.model),
                scale=1.0 if scaler is None else scaler.get_scale(),
            )
        except RuntimeError as error:  # such as too little memory: what was found so far must not be lost
            return f'The search for the first module failed: {error}'
        if culprit is None:
            elsewhere = 'came from another process, or ' if get_world_size() > 1 else ''
            return (
                f'When the batch was repeated, all numbers were finite: what went wrong {elsewhere}does not happen '
                f'every time.'
            )
        first = f'First of all: {culprit}.'
        if self._lost:
            first += (
                ' The optimizer has made its step, so this may be the damage and not its cause: a fused optimizer, or '
                'default_hooks.check_finite.interval=1, keeps the weights as they were.'
            )
        return first


def _scaler(runner: Runner) -> torch.amp.GradScaler | None:
    """The loss scaler, if the training has one and it is on."""
    scaler = getattr(runner.optim_wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def _forget_found_inf(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    """Take back what told a fused optimizer to make no step; GradScaler does so itself."""
    if hasattr(optimizer, 'found_inf') and not hasattr(optimizer, 'grad_scale'):
        del optimizer.found_inf


def _all_finite(tensors: list[Tensor]) -> Tensor:
    """Whether all numbers of all tensors are finite, as a tensor on their device; in general each is read once."""
    tensors = [tensor.detach() for tensor in tensors]
    if tensors[0].device.type == 'cpu':
        # The fastest thing to do with a tensor is to add it up. The sum of numbers may overflow: then look closely.
        if torch.stack([tensor.sum(dtype=torch.float32) for tensor in tensors]).isfinite().all():
            return torch.tensor(True)
        return torch.stack([tensor.isfinite().all() for tensor in tensors]).all()
    # A few kernels for all of them. Largest magnitudes cannot overflow, and NaN is larger than any number.
    return torch.stack([norm.float() for norm in torch._foreach_norm(tensors, float('inf'))]).isfinite().all()


def _loss_terms(losses: object) -> Iterator[str]:
    for name, tensor in tensors_in(losses):
        yield f'{name}={tensor.mean().item():.6g}' if tensor.numel() == 1 else f'{name}: {describe(tensor)}'


def _image_paths(inputs: object, most: int = 8) -> list[str]:
    """Paths of the images in a model's inputs, as far as the data samples know them."""
    if isinstance(inputs, Mapping):
        inputs = list(inputs.values())
    if isinstance(inputs, (list, tuple)):
        return [path for part in inputs for path in _image_paths(part, most)][:most]
    path = getattr(inputs, 'img_path', None)
    return [str(path)] if path else []


def _saved(checkpoint: Mapping) -> Iterator[tuple[str, Tensor]]:
    for part in ('state_dict', 'ema_state_dict'):
        yield from tensors_in(checkpoint.get(part, {}), '' if part == 'state_dict' else part)
    for index, moments in (checkpoint.get('optimizer') or {}).get('state', {}).items():
        yield from tensors_in(moments, f'optimizer.state.{index}')


def _resume_line(runner: Runner) -> str:
    """What to go on from."""
    found = last_good_checkpoint(_checkpoint_folders(runner))
    if found is None:
        return 'There is no checkpoint of this run with finite weights to go on from.'
    return (
        f'Last good checkpoint, all weights finite: {found}. Before --resume {found}, change what made it diverge: a '
        f'lower learning rate, gradient clipping (optim_wrapper.clip_grad), bfloat16 instead of float16, or the data.'
    )


def _checkpoint_folders(runner: Runner) -> list[Path]:
    """Local folders with checkpoints of the run."""
    folders = [runner.work_dir, *(hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook))]
    return [Path(folder) for folder in dict.fromkeys(folders) if folder and '://' not in str(folder)]


def last_good_checkpoint(folders: list[Path]) -> Path | None:
    """The newest checkpoint whose weights are all finite, of those that a run can go on from.

    Args:
        folders: Where to look.

    Returns:
        Its path; None if there is none. Files that cannot be read, or not without executing them, are passed over.
    """
    for path, content in resumable_checkpoints(folders):
        try:
            check_finite(content['state_dict'], path)
        except CheckpointError:
            continue
        return path
    return None
