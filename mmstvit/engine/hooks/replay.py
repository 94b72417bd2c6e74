"""Repetition of a training iteration, to find the first tensor with NaN or Inf."""

import contextlib
import itertools
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import torch
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmstvit.fileio import find_nonfinite


def find_first_bad(runner: Runner, model: nn.Module, args: tuple, kwargs: dict) -> str:
    """Repeat the forward and backward pass of ``model(*args, **kwargs)``, and describe the first bad tensor.

    It checks all tensors that the modules get, have and pass on. Parameters and their ``grad`` stay as they are;
    BatchNorm statistics are updated. The model is that of the runner, without a wrapper.
    """
    bad: list[str] = []

    def check(what: str, value: object) -> None:
        # Detached: activation checkpointing has to save the same tensors in both passes.
        if not bad and (text := first_bad((what, tensor.detach()) for _, tensor in tensors_in(value))):
            bad.append(text)

    def before(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            check(f'{key} of {name}', tensor)
        check(f'input of {name}', (args, kwargs))

    def after(name: str, module: nn.Module, args: tuple, output: object) -> None:
        check(f'output of {name}', output)
        for _, tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(partial(check, f'gradient of the output of {name}'))

    with contextlib.ExitStack() as hooks:
        for name, module in model.named_modules():
            name = f'{name or "the model"} ({type(module).__name__})'
            hooks.callback(module.register_forward_pre_hook(partial(before, name), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(partial(after, name)).remove)
            if isinstance(module, nn.SyncBatchNorm):  # would wait for the other processes
                module.forward = types.MethodType(_BatchNorm.forward, module)
                hooks.callback(delattr, module, 'forward')
        with torch.enable_grad(), runner.optim_wrapper.optim_context(runner.model):
            losses = model(*args, **kwargs)
        if not bad:
            weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
            loss, scaler = model.parse_losses(losses)[0], getattr(runner.optim_wrapper, 'loss_scaler', None)
            loss = loss if scaler is None else scaler.scale(loss)
            # Not loss.backward(): DistributedDataParallel would wait for the other processes.
            gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            for name, gradient in zip(weights, gradients, strict=True):
                check(f'gradient of the parameter {name}', gradient)
    return ''.join(bad)


def tensors_in(value: object, name: str = '') -> Iterator[tuple[str, Tensor]]:
    """Yield floating-point tensors inside containers and data samples, named by the keys that lead to them."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, (Mapping, BaseDataElement, list, tuple)):
        for key, part in enumerate(value) if isinstance(value, (list, tuple)) else value.items():
            yield from tensors_in(part, f'{name}.{key}' if name else str(key))
    elif isinstance(getattr(value, 'tensor', None), Tensor):  # boxes of MMDetection
        yield from tensors_in(value.tensor, name)


def all_finite(tensors: list[Tensor]) -> bool:
    """Check that tensors of one device have neither NaN nor Inf; usually reads each value once."""
    if not tensors:
        return True
    # Norms are the fastest test, a few launches on a GPU, but those of finite values can overflow: then look at each.
    norms = torch._foreach_norm([tensor.detach() for tensor in tensors])
    return bool(torch.stack(norms).isfinite().all()) or all(bool(t.isfinite().all()) for t in tensors)


def first_bad(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Describe the first tensor with NaN or Inf; empty if there is none."""
    return next(filter(None, itertools.starmap(find_nonfinite, tensors)), '')
