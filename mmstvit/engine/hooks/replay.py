"""A training iteration again, looked at module by module, for the first number that is none."""

import contextlib
import random
import types
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle

Named = Iterable[tuple[str, Tensor]]


class Call:
    """A forward call of a model and the state of the random numbers at that moment; nothing is copied but the latter.

    Args:
        args: Positional arguments of the call.
        kwargs: Its keyword arguments.
        device: Where the model is.
    """

    def __init__(self, args: tuple, kwargs: dict, device: torch.device) -> None:
        self.args = args
        self.kwargs = kwargs
        self._python = random.getstate()
        self._numpy = np.random.get_state()
        self._torch = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == 'cuda' else None
        self._device = device

    def restore_random(self) -> None:
        """Let the random numbers of the call come again."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)


def find_culprit(model: nn.Module, call: Call, context: contextlib.AbstractContextManager, scale: float) -> str | None:
    """Repeat a call, and its backward pass, and find the first tensor with NaN or Inf.

    The weights and the training mode are the model's at present; of them, BatchNorm's statistics alone change, and no
    gradient is left. Synchronised BatchNorms take the statistics of this process: the others need not take part.

    Args:
        model: A model of MMEngine, without its wrappers; called with ``mode='loss'``.
        call: What to repeat.
        context: In which the forward pass runs, such as autocast.
        scale: Factor of the loss in the backward pass.

    Returns:
        Which tensor of which module; None if all numbers are finite this time.
    """
    watch = _Watch(model)
    call.restore_random()
    with watch, torch.enable_grad():
        with context:
            losses = model(*call.args, **call.kwargs)
        if watch.found is None:
            watch.look('', losses, 'loss term {}')
        if watch.found is None:
            _look_at_gradients(watch, model, model.parse_losses(losses)[0] * scale)
    return watch.found


def _look_at_gradients(watch: '_Watch', model: nn.Module, loss: Tensor) -> None:
    """Backward pass; the gradients of the activations are looked at by hooks, in the order in which they come."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    # Unlike loss.backward() it leaves the gradients of the parameters, and the hooks of wrappers on them, alone.
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    if watch.found is None:
        for name, gradient in reversed(list(zip(parameters, gradients, strict=True))):
            watch.look(name, gradient, 'gradient of the parameter {}')


class _Watch(contextlib.AbstractContextManager):
    """Hooks on every module, for as long as the context lasts.

    ``found`` says which tensor was the first one with a number that is none.
    """

    def __init__(self, model: nn.Module) -> None:
        self.found: str | None = None
        self._model = model
        self._names = {module: f'{name} ({type(module).__name__})' for name, module in model.named_modules()}
        self._names[model] = f'the model ({type(model).__name__})'
        self._handles: list[RemovableHandle] = []
        self._alone: list[nn.Module] = []

    def __enter__(self) -> '_Watch':
        for module in self._names:
            self._handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._after))
            if isinstance(module, nn.SyncBatchNorm):
                module.forward = types.MethodType(_BatchNorm.forward, module)
                self._alone.append(module)
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()
        for module in self._alone:
            del module.forward

    def look(self, name: str, value: object, what: str) -> None:
        """Note the first bad tensor in ``value``; ``what`` says what it is, with a place for its name."""
        for inner, tensor in tensors_in(value):
            # Detached: a part that is computed again in the backward pass must save the same tensors both times.
            if self.found is None and not torch.isfinite(tensor.detach()).all():
                self.found = f'{what.format(name or inner)}: {describe(tensor)}'

    def _before(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        name = self._names[module]
        for kind, own in (('parameter', module.named_parameters), ('buffer', module.named_buffers)):
            for key, tensor in own(recurse=False):
                self.look(name, tensor, f'{kind} {key} of {{}}')
        self.look(name, (args, kwargs), 'input of {}')

    def _after(self, module: nn.Module, args: tuple, output: object) -> None:
        name = self._names[module]
        if module is not self._model:  # whose output are the loss terms: they are looked at by name
            self.look(name, output, 'output of {}')
        for _, tensor in tensors_in(output):
            if tensor.requires_grad:
                tensor.register_hook(partial(self._gradient, name))

    def _gradient(self, name: str, gradient: Tensor) -> None:
        self.look(name, gradient, 'gradient of the output of {}')


def tensors_in(value: object, name: str = '') -> Iterator[tuple[str, Tensor]]:
    """Floating-point tensors inside containers and data samples, with the keys that lead to them, joined by dots."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield name, value
    elif isinstance(value, (Mapping, BaseDataElement)):
        for key, part in value.items():
            yield from tensors_in(part, f'{name}.{key}' if name else str(key))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from tensors_in(part, f'{name}.{index}' if name else str(index))
    elif isinstance(getattr(value, 'tensor', None), Tensor):  # MMDetection's boxes
        yield from tensors_in(value.tensor, name)


def describe(tensor: Tensor) -> str:
    """How many numbers of a tensor are none, and how large the others are."""
    tensor = tensor.detach()
    finite = tensor[torch.isfinite(tensor)].abs()
    counts = [f'{count} {kind}' for kind, count in _counts(tensor).items() if count]
    largest = f', the others up to {finite.max().item():.3g}' if len(finite) else ''
    return f'{" and ".join(counts)} of {tensor.numel()} numbers ({str(tensor.dtype).removeprefix("torch.")}){largest}'


def _counts(tensor: Tensor) -> dict[str, int]:
    return {'NaN': int(torch.isnan(tensor).sum()), 'Inf': int(torch.isinf(tensor).sum())}


def first_bad(tensors: Named) -> str | None:
    """The first tensor with NaN or Inf: its name and what is in it; None if there is none."""
    for name, tensor in tensors:
        if not torch.isfinite(tensor).all():
            return f'{name}: {describe(tensor)}'
    return None
