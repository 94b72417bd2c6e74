"""Super token attention of :mod:`.super_token` as operators that torch.compile calls and does not look into.

Looked into, padding, cells and neighbourhoods of a map of unknown size keep the compiler busy with the algebra of their
sides, for seconds per block, and every way in which sides divide into cells has code of its own. As operators they
are code for any size. Values and gradients are those of :mod:`.super_token`; the gradients are written out:

- that of sampling is upsampling, of the gradient over the normaliser;
- that of upsampling is the weighted sum, not normalised.

The Triton operators need none of this: they are such operators themselves.
"""

import torch
from torch import Tensor

from . import super_token
from .super_token import self_attention

__all__ = ['is_wanted', 'sample_super_tokens', 'self_attention', 'upsample_super_tokens']


def is_wanted() -> bool:
    """Whether the compiler looks on, and not to export, which torch 2.7 or later tells apart.

    An exported program would name operators of ours, and run nowhere else.
    """
    return torch.compiler.is_compiling() and not _exports()


@torch.compiler.assume_constant_result
def _exports() -> bool:
    # Called, not looked into: the compiler itself takes the answer to be yes, always (torch 2.11). New in torch 2.7.
    return hasattr(torch.compiler, 'is_exporting') and torch.compiler.is_exporting()


def sample_super_tokens(x: Tensor, stoken_size: int, n_iter: int = 1) -> tuple[Tensor, Tensor]:
    """See :func:`mmstvit.ops.super_token.sample_super_tokens`."""
    return _sample(x, stoken_size, n_iter)


def upsample_super_tokens(tokens: Tensor, affinity: Tensor, size: tuple[int, int]) -> Tensor:
    """See :func:`mmstvit.ops.super_token.upsample_super_tokens`."""
    return _upsample(tokens, affinity, *size)


@torch.library.custom_op('mmstvit::torch_sample_super_tokens', mutates_args=())
def _sample(x: Tensor, stoken_size: int, n_iter: int) -> tuple[Tensor, Tensor]:
    return super_token.sample_super_tokens(x, stoken_size, n_iter)


@_sample.register_fake
def _(x, stoken_size, n_iter):
    b, height, width, c = x.shape
    h, w = ((side + stoken_size - 1) // stoken_size for side in (height, width))
    dtype = torch.promote_types(x.dtype, torch.float32)
    affinity = x.new_empty(b, h, w, 9, stoken_size**2, dtype=dtype).transpose(-1, -2)  # as the softmax leaves it
    return x.new_empty(b, h, w, c), affinity


@torch.library.custom_op('mmstvit::torch_sample_super_tokens_backward', mutates_args=())
def _sample_grad(grad: Tensor, affinity: Tensor, height: int, width: int) -> Tensor:
    grad, affinity = super_token.normalise_gradient(grad, affinity, super_token.total_weights(affinity))
    return super_token.upsample_super_tokens(grad, affinity, (height, width)).contiguous()


@torch.library.custom_op('mmstvit::torch_upsample_super_tokens', mutates_args=())
def _upsample(tokens: Tensor, affinity: Tensor, height: int, width: int) -> Tensor:
    return super_token.upsample_super_tokens(tokens, affinity, (height, width)).contiguous()


@_sample_grad.register_fake
@_upsample.register_fake
def _(tokens, affinity, height, width):
    return tokens.new_empty(tokens.shape[0], height, width, tokens.shape[3])


@torch.library.custom_op('mmstvit::torch_upsample_super_tokens_backward', mutates_args=())
def _upsample_grad(grad: Tensor, affinity: Tensor) -> Tensor:
    cells = super_token.partition(grad, round(affinity.shape[3] ** 0.5))
    return super_token.weighted_sums(cells, affinity).to(grad.dtype)


@_upsample_grad.register_fake
def _(grad, affinity):
    return grad.new_empty(*affinity.shape[:3], grad.shape[3])


def _sample_context(ctx, inputs, output):
    ctx.size = inputs[0].shape[1:3]
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)  # zeros of the association's size, for nothing


def _sample_backward(ctx, grad_tokens, _):
    grad = None if grad_tokens is None else _sample_grad(grad_tokens, *ctx.saved_tensors, *ctx.size)
    return grad, None, None


def _upsample_context(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _upsample_backward(ctx, grad):
    return _upsample_grad(grad, *ctx.saved_tensors), None, None, None


_sample.register_autograd(_sample_backward, setup_context=_sample_context)
_upsample.register_autograd(_upsample_backward, setup_context=_upsample_context)
