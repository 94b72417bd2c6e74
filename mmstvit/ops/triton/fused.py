"""The backend ``fused``: all that is around the matrix products of a block, in few Triton kernels.

Three fusions (:mod:`.block_kernels`) take the place of most launches of a block, and of a third of its traffic:

- a depthwise convolution with its bias and shortcut; backward, the gradients of map, weights and bias and the slope of
  the GELU before it in one pass;
- the same with the LayerNorm behind it; backward, LayerNorm and the sum of both gradients;
- the sum of a branch with its input, layer scale and stochastic depth.

The kernels are equal to the reference under Triton's interpreter and compile for GPUs without spilling registers. They
have never been timed on a GPU: see ``AUTO_ON_CUDA`` in :mod:`mmstvit.ops.backend`.
"""

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from . import block_kernels as kernels
from .operators import fake, linear, operator, sample_super_tokens, self_attention, upsample_super_tokens

__all__ = [
    'add_branch',
    'conv_ffn',
    'linear',
    'residual_dwconv',
    'residual_dwconv_norm',
    'sample_super_tokens',
    'self_attention',
    'upsample_super_tokens',
]

_TILE = 2048  # numbers of a tile, 16 per thread
_BACKWARD_TILE = 512  # with eleven sums per number in registers
_ROWS, _BACKWARD_ROWS = 14, 7  # rows of a strip
_ROUNDS = 8  # tiles of a program that sums over tokens
_TAPS = 9


def _blocks(c: int, width: int, tile: int, most: int) -> dict[str, int]:
    """Return the sides of a tile with at most ``most`` channels."""
    block_c = min(triton.next_power_of_2(c), most)
    return dict(C=c, BLOCK_W=min(triton.next_power_of_2(width), max(tile // block_c, 1)), BLOCK_C=block_c)


def _token_blocks(c: int) -> dict[str, int]:
    """Return the sides of a tile with all channels."""
    block_c = triton.next_power_of_2(c)
    return dict(C=c, BLOCK_T=max(_TILE // block_c, 1), BLOCK_C=block_c)


def _add_parts(parts: Tensor, weight: Tensor | None, first: Tensor, second: Tensor | None = None) -> None:
    programs, rows, c = parts.shape
    kernels.sum_kernel[(triton.cdiv(c, 32), rows)](
        parts, weight, first, second, programs,
        C=c, ROWS=rows, TAPS=0 if weight is None else _TAPS, BLOCK_P=64, BLOCK_C=32,
    )  # fmt: skip


@operator('dwconv')
def _dwconv(x: Tensor, weight: Tensor, bias: Tensor, residual: bool) -> Tensor:
    x, weight = x.contiguous(), weight.contiguous()
    b, height, width, c = x.shape
    out = torch.empty_like(x)
    sides = _blocks(c, width, _TILE, most=64)
    strips = b * triton.cdiv(height, _ROWS) * triton.cdiv(width, sides['BLOCK_W'])
    with torch.cuda.device_of(x):
        kernels.dwconv_kernel[(strips, triton.cdiv(c, sides['BLOCK_C']))](
            x, weight, bias, out, None, None, None, None, None, height, width, 0.0,
            ROWS=_ROWS, RESIDUAL=residual, NORM=False, **sides,
        )  # fmt: skip
    return out


@fake(_dwconv)
def _(x, weight, bias, residual):
    return x.new_empty(x.shape)


@operator('dwconv_backward')
def _dwconv_backward(
    grad: Tensor, x: Tensor, weight: Tensor, residual: bool, gelu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grad, x, weight = grad.contiguous(), x.contiguous(), weight.contiguous()
    b, height, width, c = x.shape
    out, grad_weight, grad_bias, total = _dwconv_gradients(x, weight)
    strips = b * triton.cdiv(height, _BACKWARD_ROWS)
    parts = x.new_empty(strips, _TAPS + 2, c, dtype=torch.float32)
    sides = _blocks(c, width, _BACKWARD_TILE, most=64)
    with torch.cuda.device_of(x):
        kernels.dwconv_backward_kernel[(strips, triton.cdiv(c, sides['BLOCK_C']))](
            grad, x, weight, out, parts, height, width, ROWS=_BACKWARD_ROWS, RESIDUAL=residual, GELU=gelu, **sides
        )
        _add_parts(parts, grad_weight, grad_bias, total)
    return out, grad_weight, grad_bias, total


@fake(_dwconv_backward)
def _(grad, x, weight, residual, gelu):
    return _dwconv_gradients(x, weight)


def _dwconv_gradients(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    c = x.shape[3]
    return x.new_empty(x.shape), weight.new_empty(weight.shape), weight.new_empty(c), weight.new_empty(c)


@operator('dwconv_norm')
def _dwconv_norm(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, weight = x.contiguous(), weight.contiguous()
    b, height, width, c = x.shape
    out, normed, mean, rstd = _norm_outputs(x)
    sides = _blocks(c, width, _TILE, most=triton.next_power_of_2(c))
    strips = b * triton.cdiv(height, _ROWS) * triton.cdiv(width, sides['BLOCK_W'])
    with torch.cuda.device_of(x):
        kernels.dwconv_kernel[(strips, 1)](
            x, weight, bias, out, gamma, beta, normed, mean, rstd, height, width, eps,
            ROWS=_ROWS, RESIDUAL=True, NORM=True, **sides,
        )  # fmt: skip
    return out, normed, mean, rstd


@fake(_dwconv_norm)
def _(x, weight, bias, gamma, beta, eps):
    return _norm_outputs(x)


def _norm_outputs(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    statistics = (x.new_empty(x.shape[:3], dtype=torch.float32) for _ in range(2))
    return x.new_empty(x.shape), x.new_empty(x.shape), *statistics


@operator('norm_backward')
def _norm_backward(
    grad: Tensor, grad_normed: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, gamma: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradient of x, which reaches it directly and through its LayerNorm, and those of γ and β."""
    grad, grad_normed = grad.contiguous(), grad_normed.contiguous()
    out, grad_gamma, grad_beta = x.new_empty(x.shape), torch.empty_like(gamma), torch.empty_like(gamma)
    tokens, sides = mean.numel(), _token_blocks(x.shape[3])
    programs = triton.cdiv(tokens, _ROUNDS * sides['BLOCK_T'])
    parts = x.new_empty(programs, 2, x.shape[3], dtype=torch.float32)
    with torch.cuda.device_of(x):
        kernels.norm_backward_kernel[(programs,)](
            grad, grad_normed, x, mean, rstd, gamma, out, parts, tokens, ROUNDS=_ROUNDS, **sides
        )
        _add_parts(parts, None, grad_gamma, grad_beta)
    return out, grad_gamma, grad_beta


@fake(_norm_backward)
def _(grad, grad_normed, x, mean, rstd, gamma):
    return x.new_empty(x.shape), torch.empty_like(gamma), torch.empty_like(gamma)


@operator('add_branch')
def _add_branch(x: Tensor, branch: Tensor, gamma: Tensor | None, factor: Tensor | None) -> Tensor:
    x, branch, factor = x.contiguous(), branch.contiguous(), None if factor is None else factor.contiguous()
    b, height, width, c = x.shape
    out, sides = _sum_of(x, branch, gamma), _token_blocks(c)
    with torch.cuda.device_of(x):
        kernels.add_branch_kernel[(triton.cdiv(height * width, sides['BLOCK_T']), b)](
            x, branch, gamma, factor, out, height * width, **sides
        )
    return out


@fake(_add_branch)
def _(x, branch, gamma, factor):
    return _sum_of(x, branch, gamma)


def _sum_of(x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
    dtype = torch.promote_types(x.dtype, branch.dtype)
    return x.new_empty(x.shape, dtype=dtype if gamma is None else torch.promote_types(dtype, gamma.dtype))


@operator('add_branch_backward')
def _add_branch_backward(
    grad: Tensor, branch: Tensor, gamma: Tensor | None, factor: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the gradients of the branch and of γ; the latter is empty without γ."""
    grad, branch, factor = grad.contiguous(), branch.contiguous(), None if factor is None else factor.contiguous()
    b, height, width, c = branch.shape
    out, grad_gamma = _branch_gradients(branch, gamma)
    sides = _token_blocks(c)
    programs = triton.cdiv(height * width, _ROUNDS * sides['BLOCK_T'])
    parts = None if gamma is None else branch.new_empty(b * programs, 1, c, dtype=torch.float32)
    with torch.cuda.device_of(branch):
        kernels.add_branch_backward_kernel[(programs, b)](
            grad, branch, gamma, factor, out, parts, height * width, ROUNDS=_ROUNDS, **sides
        )
        if parts is not None:
            _add_parts(parts, None, grad_gamma)
    return out, grad_gamma


@fake(_add_branch_backward)
def _(grad, branch, gamma, factor):
    return _branch_gradients(branch, gamma)


def _branch_gradients(branch: Tensor, gamma: Tensor | None) -> tuple[Tensor, Tensor]:
    return branch.new_empty(branch.shape), branch.new_empty(0) if gamma is None else torch.empty_like(gamma)


class _Dwconv(torch.autograd.Function):
    """dwconv3x3(h) + bias, with ``residual`` plus h; h is x, or with ``gelu`` gelu(x + bias before).

    The bias before must be in ``x`` already: its gradient is the sum of that of ``x``, which the kernel has at hand.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, before: Tensor | None, weight: Tensor, bias: Tensor, residual: bool, gelu: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.flags = residual, gelu
        return _dwconv(F.gelu(x) if gelu else x, weight, bias, residual)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        out, grad_weight, grad_bias, total = _dwconv_backward(grad, x, weight, *ctx.flags)
        return out, total if ctx.needs_input_grad[1] else None, grad_weight, grad_bias, None, None


class _DwconvNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        out, normed, mean, rstd = _dwconv_norm(x, weight, bias, gamma, beta, eps)
        ctx.save_for_backward(x, weight, gamma, out, mean, rstd)
        return out, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor, grad_normed: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, gamma, out, mean, rstd = ctx.saved_tensors
        grad, grad_gamma, grad_beta = _norm_backward(grad, grad_normed, out, mean, rstd, gamma)
        grad_x, grad_weight, grad_bias, _ = _dwconv_backward(grad, x, weight, True, False)
        return grad_x, grad_weight, grad_bias, grad_gamma, grad_beta, None


class _AddBranch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, branch: Tensor, gamma: Tensor | None, factor: Tensor | None) -> Tensor:
        ctx.save_for_backward(branch, gamma, factor)
        return _add_branch(x, branch, gamma, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None, None]:
        branch, gamma, factor = ctx.saved_tensors
        grad_branch, grad_gamma = _add_branch_backward(grad, branch, gamma, factor)
        return grad, grad_branch, None if gamma is None else grad_gamma, None


def residual_dwconv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute ``x + dwconv3x3(x)``; see :func:`mmstvit.ops.super_token.residual_dwconv`."""
    return _Dwconv.apply(x, None, weight, bias, True, False)


def residual_dwconv_norm(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Compute ``x + dwconv3x3(x)`` and its LayerNorm; see :func:`mmstvit.ops.super_token.residual_dwconv_norm`."""
    return _DwconvNorm.apply(x, weight, bias, gamma, beta, eps)


def add_branch(x: Tensor, branch: Tensor, gamma: Tensor | None = None, factor: Tensor | None = None) -> Tensor:
    """Compute ``x + factor · γ · branch``; see :func:`mmstvit.ops.super_token.add_branch`."""
    return x + branch if gamma is None and factor is None else _AddBranch.apply(x, branch, gamma, factor)


def conv_ffn(
    x: Tensor, w1: Tensor, b1: Tensor, wd: Tensor, bd: Tensor, w2: Tensor, b2: Tensor, residual: bool = True
) -> Tensor:
    """Compute the convolutional FFN; see :func:`mmstvit.ops.super_token.conv_ffn`."""
    return linear(_Dwconv.apply(linear(x, w1, b1.detach()), b1, wd, bd, residual, True), w2, b2)
