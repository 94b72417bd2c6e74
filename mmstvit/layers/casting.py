"""One cast for all weights of a stage under autocast."""

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from mmstvit.ops.super_token import is_traced

# Weights -> their copies in the dtype of autocast. Of this thread: two threads may run one model.
_CASTS: ContextVar[Mapping[Tensor | None, Tensor]] = ContextVar('casts')


@contextlib.contextmanager
def cast_weights(x: Tensor, *modules: nn.Module) -> Iterator[None]:
    """Cast the weights of all :class:`CastsWeights` in modules at once, if autocast is enabled for the device of ``x``.

    Autocast casts one weight at a time, and their gradients as well: on a GPU a third of all launches of a training
    step. Values and gradients are the same. A compiler fuses casts itself.
    """
    device = x.device.type
    if device == 'meta' or is_traced() or not torch.is_autocast_enabled(device):
        yield
        return
    layers = (m for module in modules for m in module.modules() if isinstance(m, CastsWeights))
    weights = [w for m in layers for w in m.parameters(recurse=False) if w.dtype == torch.float32]
    casts = _Cast.apply(torch.get_autocast_dtype(device), *weights) if weights else ()
    with use_casts(dict(zip(weights, casts, strict=True))):
        yield


@contextlib.contextmanager
def use_casts(casts: Mapping[Tensor | None, Tensor]) -> Iterator[None]:
    """Use copies of weights that were made before."""
    token = _CASTS.set(casts)
    try:
        yield
    finally:
        _CASTS.reset(token)


def current_casts() -> Mapping[Tensor | None, Tensor]:
    """Return the copies in use."""
    return _CASTS.get({})


class CastsWeights:
    """Base class of layers whose weights :func:`cast_weights` casts: they compute with those of :meth:`cast`."""

    def cast(self) -> list[Tensor | None]:
        """Return weight and bias, or the copies in the dtype of autocast where :func:`cast_weights` made some."""
        casts = {} if is_traced() else current_casts()
        return [casts.get(tensor, tensor) for tensor in (self.weight, self.bias)]


class _Cast(torch.autograd.Function):
    """Cast tensors with one operator; the backward pass casts their gradients with one."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        casts = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
        torch._foreach_copy_(casts, tensors)
        ctx.dtype = tensors[0].dtype
        ctx.set_materialize_grads(False)
        needs = zip(casts, ctx.needs_input_grad[1:], strict=True)
        ctx.mark_non_differentiable(*(cast for cast, needed in needs if not needed))  # of frozen weights
        return tuple(casts)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(_Cast.apply(ctx.dtype, *(grad for grad in grads if grad is not None)))
        return None, *(None if grad is None else next(found) for grad in grads)
