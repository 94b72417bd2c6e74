"""Super token attention on CUDA with Triton: the signatures of :mod:`mmstvit.ops.super_token`, as PyTorch operators.

Sampling is three kernels (:mod:`mmstvit.ops.triton.kernels`): the mean of every cell; association and weighted sums,
fused, so that a tile of the map is fetched once for both; and the sum of the nine contributions to a super token with
the division by their total weight. Association and normalizer are constants to the gradient, so

- the backward pass of sampling is upsampling, of the gradient over the normalizer (in fp16, where that can overflow, by
  the association over the normalizer);
- the backward pass of upsampling is the weighted sum again, not normalized;

and the association with one number per super token is all that is kept. Padding is never written: tokens beyond the
map are read as zeros and take part as such.

Precision: logits and softmax are in fp32, from the values as they are. Weighted sums accumulate in fp32 from weights in
the dtype of the map. Super tokens, the means too, are rounded to that dtype once. fp32 products are full fp32, no TF32.
Autocast changes nothing, because nothing here is an operator it knows. Results repeat bit for bit.

Tiles are 64 tokens by 16 lanes, in four warps (fp32) or two, and walk through the channels 32 at a time. docs/speed.md
has times of the whole backbone with these operators on one NVIDIA H200.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.autograd.function import FunctionCtx

from ..super_token import (
    add_branch,
    conv_ffn,
    linear,
    normalize_gradient,
    residual_dwconv,
    residual_dwconv_norm,
    self_attention,
)
from . import TRITON_DTYPES, kernels

__all__ = [
    'INTERPRETED',
    'add_branch',
    'conv_ffn',
    'linear',
    'residual_dwconv',
    'residual_dwconv_norm',
    'sample_super_tokens',
    'self_attention',
    'upsample_super_tokens',
]

# Under TRITON_INTERPRET=1 kernels run in Python, on any device.
INTERPRETED: bool = kernels.INTERPRETED.value

_MAX_BLOCK = 64  # tokens of a tile
_STAGES = 2


class _Tiling(NamedTuple):
    """Distribution of tokens over programs; see :mod:`mmstvit.ops.triton.kernels`."""

    group: int
    block: int
    blocks: int


def _tiling(s: int) -> _Tiling:
    """Return 2×2 cells where they fit into one tile, else one cell, in several tiles if necessary."""
    group = 2 if 4 * s * s <= _MAX_BLOCK else 1
    tokens = (group * s) ** 2
    block = min(_MAX_BLOCK, max(16, triton.next_power_of_2(tokens)))  # tl.dot wants 16
    return _Tiling(group, block, triton.cdiv(tokens, block))


def _channel_block(c: int) -> int:
    """Return the channels of a round; at least two rounds if possible: a single one is unrolled into registers."""
    return min(32, max(16, triton.next_power_of_2(c) // 2))


def _warps(dtype: torch.dtype) -> int:
    """Return the warps of a tile: fp32 products need more registers than half-precision ones on tensor cores."""
    return 4 if dtype == torch.float32 else 2


def _cells(side: int, s: int) -> int:
    return (side + s - 1) // s


def _readable(x: Tensor) -> Tensor:
    """Return ``x`` if its channels are adjacent in memory, else a contiguous copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _means(x: Tensor, s: int) -> Tensor:
    b, height, width, c = x.shape
    h, w = _cells(height, s), _cells(width, s)
    tokens = x.new_empty(b, h, w, c)
    block = min(_MAX_BLOCK, triton.next_power_of_2(s * s))
    kernels.mean_kernel[(b * h * w, triton.cdiv(c, 64))](
        x, tokens, height, width, h, w, *x.stride()[:3], C=c, S=s, BLOCK_T=block, BLOCK_C=64,
        num_warps=triton.cdiv(block, 16),
    )  # fmt: skip
    return tokens


def _weighted_sums(x: Tensor, affinity: Tensor, s: int, tokens: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Compute Σ Q x of every tile and lane; given ``tokens``, compute Q into ``affinity`` and Σ Q too."""
    b, height, width, c = x.shape
    h, w = affinity.shape[1:3]
    group, block, blocks = _tiling(s)
    gh, gw = triton.cdiv(h, group), triton.cdiv(w, group)
    tiles, lanes = b * gh * gw * blocks, (group + 2) ** 2
    parts = x.new_empty(tiles, lanes, c, dtype=torch.float32)
    totals = None if tokens is None else x.new_empty(tiles, lanes, dtype=torch.float32)
    kernels.aggregate_kernel[(tiles,)](
        x, tokens, affinity, parts, totals, height, width, h, w, gh, gw, *x.stride()[:3], c**-0.5,
        C=c, S=s, G=group, BLOCK_T=block, BLOCK_C=_channel_block(c), ASSOCIATE=tokens is not None,
        num_warps=_warps(x.dtype), num_stages=_STAGES,
    )  # fmt: skip
    return parts, totals


def _fold(
    parts: Tensor, totals: Tensor | None, size: tuple[int, int, int], s: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """Return super tokens, and the normalizer if ``totals`` are given."""
    b, h, w = size
    c = parts.shape[-1]
    group, _, blocks = _tiling(s)
    tokens = parts.new_empty(b, h, w, c, dtype=dtype)
    normalizer = None if totals is None else parts.new_empty(b, h, w, 1)
    cells = b * h * w
    kernels.fold_kernel[(triton.cdiv(cells, 4), triton.cdiv(c, 64))](
        parts, totals, tokens, normalizer, cells, h, w, triton.cdiv(h, group), triton.cdiv(w, group),
        C=c, G=group, BLOCKS=blocks, BLOCK_N=4, BLOCK_C=64, NORMALIZE=totals is not None, num_warps=2,
    )  # fmt: skip
    return tokens, normalizer


_LIBRARY = torch.library.Library('mmstvit', 'FRAGMENT')


def operator(name: str) -> Callable[[Callable], Callable]:
    """Register a function as an operator; :func:`fake` adds the function that computes its shapes.

    torch.library.custom_op and register_autograd do more and take longer: tens of microseconds per call, which is more
    than the launch of a kernel (https://github.com/pytorch/pytorch/issues/139500). Gradients are those of the autograd
    functions below, which call the operators.
    """

    def register(function: Callable) -> Callable:
        schema = torch.library.infer_schema(function, mutates_args=())
        _LIBRARY.define(name + schema, tags=torch.Tag.pt2_compliant_tag)
        _LIBRARY.impl(name, function, 'CompositeExplicitAutograd')
        return getattr(torch.ops.mmstvit, name).default

    return register


def fake(operator: Callable) -> Callable[[Callable], Callable]:
    return torch.library.register_fake(operator, lib=_LIBRARY)


@operator('sample_super_tokens')
def _sample(x: Tensor, stoken_size: int, n_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    x, s = _readable(x), stoken_size
    with torch.cuda.device_of(x):
        tokens = _means(x, s)
        b, h, w, _ = tokens.shape
        affinity = x.new_empty(b, h, w, s * s, 9, dtype=torch.float32)
        for _ in range(n_iter):
            parts, totals = _weighted_sums(x, affinity, s, tokens)
            tokens, normalizer = _fold(parts, totals, (b, h, w), s, x.dtype)
    return tokens, affinity, normalizer


@fake(_sample)
def _(x, stoken_size, n_iter):
    b, height, width, c = x.shape
    h, w = _cells(height, stoken_size), _cells(width, stoken_size)
    return (
        x.new_empty(b, h, w, c),
        x.new_empty(b, h, w, stoken_size * stoken_size, 9, dtype=torch.float32),
        x.new_empty(b, h, w, 1, dtype=torch.float32),
    )


@operator('upsample_super_tokens')
def _upsample(tokens: Tensor, affinity: Tensor, height: int, width: int) -> Tensor:
    tokens, affinity = tokens.contiguous(), affinity.contiguous()
    b, h, w, c = tokens.shape
    s = round(affinity.shape[3] ** 0.5)
    group, block, blocks = _tiling(s)
    gh, gw = triton.cdiv(h, group), triton.cdiv(w, group)
    out = tokens.new_empty(b, height, width, c)
    with torch.cuda.device_of(tokens):
        kernels.upsample_kernel[(b * gh * gw * blocks,)](
            tokens, affinity, out, height, width, h, w, gh, gw,
            C=c, S=s, G=group, BLOCK_T=block, BLOCK_C=_channel_block(c),
            num_warps=_warps(tokens.dtype), num_stages=_STAGES,
        )  # fmt: skip
    return out


@fake(_upsample)
def _(tokens, affinity, height, width):
    return tokens.new_empty(tokens.shape[0], height, width, tokens.shape[3])


@operator('aggregate')
def _aggregate(x: Tensor, affinity: Tensor) -> Tensor:
    """Compute Σ Q x for every super token, not normalized: the adjoint of upsampling."""
    x, affinity = _readable(x), affinity.contiguous()
    s = round(affinity.shape[3] ** 0.5)
    with torch.cuda.device_of(x):
        parts, _ = _weighted_sums(x, affinity, s)
        tokens, _ = _fold(parts, None, tuple(affinity.shape[:3]), s, x.dtype)
    return tokens


@fake(_aggregate)
def _(x, affinity):
    return x.new_empty(*affinity.shape[:3], x.shape[3])


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, stoken_size: int, n_iter: int) -> tuple[Tensor, Tensor]:
        tokens, affinity, normalizer = _sample(x, stoken_size, n_iter)
        ctx.size = x.shape[1:3]
        ctx.save_for_backward(affinity, normalizer)
        ctx.mark_non_differentiable(affinity)
        ctx.set_materialize_grads(False)  # zeros of the association's size, for nothing
        return tokens, affinity

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor | None, _: None) -> tuple[Tensor | None, None, None]:
        if grad is None:
            return None, None, None
        affinity, normalizer = ctx.saved_tensors
        return _Upsample.apply(*normalize_gradient(grad, affinity, normalizer), *ctx.size), None, None


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, tokens: Tensor, affinity: Tensor, height: int, width: int) -> Tensor:
        ctx.save_for_backward(affinity)
        return _upsample(tokens, affinity, height, width)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return _Aggregate.apply(grad, *ctx.saved_tensors), None, None, None


class _Aggregate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, affinity: Tensor) -> Tensor:
        ctx.size = x.shape[1:3]
        ctx.save_for_backward(affinity)
        return _aggregate(x, affinity)

    @staticmethod
    def backward(ctx: FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return _Upsample.apply(grad, *ctx.saved_tensors, *ctx.size), None


def _check(name: str, x: Tensor) -> None:
    if x.dim() != 4:
        raise ValueError(f'{name} must be (batch, height, width, channels), but got {tuple(x.shape)}.')
    if x.dtype not in TRITON_DTYPES:
        raise TypeError(
            f'The Triton operators take {", ".join(map(str, TRITON_DTYPES))}, but {name} is {x.dtype}: convert it, or '
            f"use the backend 'torch'."
        )
    if not (x.is_cuda or INTERPRETED):
        raise ValueError(
            f"The Triton operators run on CUDA, but {name} is on {x.device}: move it, or use the backend 'torch'."
        )


def sample_super_tokens(x: Tensor, stoken_size: int, n_iter: int = 1) -> tuple[Tensor, Tensor]:
    """Sample super tokens; see :func:`mmstvit.ops.super_token.sample_super_tokens`.

    Args:
        x: Normalized map, (B, H, W, C), in fp32, fp16 or bf16; read in place where channels are adjacent in memory.
        stoken_size: Side s of a cell, in tokens.
        n_iter: Sampling iterations.

    Returns:
        Super tokens (B, h, w, C) in the dtype of ``x`` and association (B, h, w, s², 9) in fp32.

    Raises:
        TypeError: Another dtype.
        ValueError: ``x`` is not 4-D or not on a GPU, or a number is not positive.
    """
    _check('x', x)
    for name, value in (('stoken_size', stoken_size), ('n_iter', n_iter)):
        if value < 1:
            raise ValueError(f'{name} must be a positive integer, but got {value!r}.')
    return _Sample.apply(x, stoken_size, n_iter)


def upsample_super_tokens(tokens: Tensor, affinity: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample super tokens; see :func:`mmstvit.ops.super_token.upsample_super_tokens`.

    Args:
        tokens: Super tokens, (B, h, w, C), in fp32, fp16 or bf16.
        affinity: Association, (B, h, w, s², 9), in fp32; no gradient reaches it.
        size: Height and width of the map; (h, w) is the grid of its cells.

    Returns:
        (B, H, W, C), in the dtype of ``tokens``.

    Raises:
        TypeError: Another dtype.
        ValueError: ``tokens`` is not on a GPU, or the shapes do not fit each other: the kernels would read beyond them.
    """
    _check('tokens', tokens)
    if affinity.dtype != torch.float32:
        raise TypeError(f'affinity must be torch.float32, as sample_super_tokens returns it, but is {affinity.dtype}.')
    height, width = size
    s = round(affinity.shape[3] ** 0.5) if affinity.dim() == 5 else 0
    grid = (tokens.shape[0], _cells(height, s), _cells(width, s)) if s else ()
    if tuple(affinity.shape) != (*grid, s * s, 9) or tuple(tokens.shape[:3]) != grid:
        raise ValueError(
            f'A map of size {(height, width)} needs tokens (B, ⌈H/s⌉, ⌈W/s⌉, C) and affinity (B, ⌈H/s⌉, ⌈W/s⌉, s², 9), '
            f'but got {tuple(tokens.shape)} and {tuple(affinity.shape)}.'
        )
    return _Upsample.apply(tokens, affinity, height, width)
