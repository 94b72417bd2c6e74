"""Repeat a training iteration and find the first tensor with NaN or Inf."""

import contextlib
import random
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def record_random() -> Callable[[], None]:
    """Return a function that resets the random number generators to their present state."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)

    return restore


def find_first_bad(
    model: nn.Module, args: tuple, kwargs: dict, context: contextlib.AbstractContextManager, scale: float
) -> str | None:
    """Repeat the forward and backward pass of an iteration, and check every tensor that the modules pass on.

    Parameters and their ``grad`` stay as they are; BatchNorm statistics are updated.

    Args:
        model: A model of MMEngine, without its wrappers.
        args: Positional arguments of its call.
        kwargs: Keyword arguments of its call, with ``mode='loss'``.
        context: Context of the forward pass, such as autocast.
        scale: Factor of the loss in the backward pass.

    Returns:
        The first bad tensor and its module in words, or None if all values are finite.
    """
    found: list[str] = []

    def check(what: str, value: object) -> None:
        # Detached: activation checkpointing has to save the same tensors in both passes.
        bad = None if found else first_bad((what, tensor.detach()) for _, tensor in tensors_in(value))
        if bad is not None:
            found.append(bad)

    def before(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            check(f'{key} of {name}', tensor)
        check(f'input of {name}', (args, kwargs))

    def after(name: str, module: nn.Module, args: tuple, output: object) -> None:
        if module is not model:  # which returns the loss terms; they are checked by their names
            check(f'output of {name}', output)
        for _, tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(partial(check, f'gradient of the output of {name}'))

    with contextlib.ExitStack() as hooks, torch.enable_grad():
        for name, module in model.named_modules():
            name = f'{name or "the model"} ({type(module).__name__})'
            hooks.callback(module.register_forward_pre_hook(partial(before, name), with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(partial(after, name)).remove)
            if isinstance(module, nn.SyncBatchNorm):  # would wait for the other processes
                module.forward = types.MethodType(_BatchNorm.forward, module)
                hooks.callback(delattr, module, 'forward')
        with context:
            losses = model(*args, **kwargs)
        for name, term in tensors_in(losses):
            check(f'loss term {name}', term)
        if not found:
            parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
            loss = model.parse_losses(losses)[0] * scale
            # Not loss.backward(): DistributedDataParallel would wait for the other processes.
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in reversed(list(zip(parameters, gradients, strict=True))):
                check(f'gradient of the parameter {name}', gradient)
    return found[0] if found else None


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
    # A sum is the fastest test, but sums of finite values can overflow: then look at each value.
    sums = torch.stack([tensor.detach().sum(dtype=torch.float32) for tensor in tensors])
    return bool(sums.isfinite().all()) or all(bool(tensor.isfinite().all()) for tensor in tensors)


def first_bad(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """Describe the first tensor with NaN or Inf: its name, and what is in it."""
    for name, tensor in tensors:
        finite = tensor.isfinite()
        if not finite.all():
            nan, inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
            counts = ' and '.join(f'{count} {kind}' for count, kind in ((nan, 'NaN'), (inf, 'Inf')) if count)
            largest = f', largest finite magnitude {tensor[finite].abs().max().item():.3g}' if finite.any() else ''
            return f'{name}: {counts} in {tensor.numel()} values ({str(tensor.dtype).removeprefix("torch.")}{largest})'
    return None
