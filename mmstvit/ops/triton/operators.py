"""Super token attention on CUDA with Triton: the signatures of :mod:`mmstvit.ops.super_token`, as PyTorch operators.

Sampling is three kernels (:mod:`mmstvit.ops.triton.kernels`): the mean of every cell; association and weighted sums,
fused, so that a tile of the map is fetched once for both; and the sum of the nine contributions to a super token with
the division by their total weight. Association and normalizer are constants to the gradient, so

- the backward pass of sampling is upsampling, of the gradient over the normaliser (in fp16, where that can overflow, by
  the association over the normaliser);
- the backward pass of upsampling is the weighted sum again, not normalised;

and the association with one number per super token is all that is kept. Padding is never written: tokens beyond the
map are read as zeros and take part as such.

Precision: logits and softmax in fp32 from the values as they are; weighted sums accumulate in fp32 from weights in the
dtype of the map; super tokens, the means too, are rounded to that dtype once. fp32 products are full fp32, no TF32.
Autocast changes nothing, since nothing here is an operator it knows. Results repeat bit for bit.

Cost, in elements of the map (N·C of them, in its dtype), for cells of 8×8 and of 4×4 tokens:

======================================  =======================  ======================
step                                    moved                    least possible
======================================  =======================  ======================
means                                   1 read                   1 read
association and weighted sums           1 read (again from L1)   1 read
partial sums, in fp32                   9/64, 1/4: written+read  none
super tokens                            1/64, 1/16 written       1/64, 1/16 written
association, 36 bytes a token           written                  written
upsampling                              1 written, Q read        1 written, Q read
======================================  =======================  ======================

Sampling moves 1.1 to 1.4 times the least in fp32 and 1.3 to 1.7 times in half precision, upsampling the least. What is
above it are the partial sums: some MB, read right after they are written, which an L2 cache holds. They stay in fp32,
since sums over hundreds of fp16 tokens can overflow.

Tiles are 64 tokens by 16 lanes, in four warps (fp32) or two, and walk through the channels 32 at a time. Compiled for
compute capability 8.0, 9.0 and 12.0 they take at most 128 registers a thread and 14 KiB of shared memory, so that four
tiles or more share a multiprocessor and 30 KiB or more of loads are in flight there; an H100 needs about 15 (3.35 TB/s,
0.6 µs, 132 multiprocessors). By the machine code, association and weighted sums of 64 tokens of 128 channels take 2,200
instructions of a warp in bf16, half the time in which an H100 reads the tokens, and 15,400 in fp32, 1.7 times that
time: the price of exact products, 32 multiply-adds for 4 bytes, 18 of them on the token's own nine lanes. There is
nothing to autotune: more channels at a time spill, and fewer do more bookkeeping. None of this has been timed.
"""

from typing import NamedTuple

import torch
import triton
from torch import Tensor

from ..super_token import conv_ffn, linear, normalize_gradient, residual_dwconv, self_attention
from . import TRITON_DTYPES, kernels

__all__ = [
    'INTERPRETED',
    'conv_ffn',
    'linear',
    'residual_dwconv',
    'sample_super_tokens',
    'self_attention',
    'upsample_super_tokens',
]

# Under TRITON_INTERPRET=1 kernels run in Python, on any device.
INTERPRETED: bool = kernels.INTERPRETED.value

_MAX_BLOCK = 64  # tokens of a tile
_STAGES = 2


class _Tiling(NamedTuple):
    """How tokens are dealt to programs; see :mod:`mmstvit.ops.triton.kernels`."""

    group: int
    block: int
    blocks: int


def _tiling(s: int) -> _Tiling:
    """2×2 cells where they fit into one tile, else one cell, in several tiles if need be."""
    group = 2 if 4 * s * s <= _MAX_BLOCK else 1
    tokens = (group * s) ** 2
    block = min(_MAX_BLOCK, max(16, triton.next_power_of_2(tokens)))  # tl.dot wants 16
    return _Tiling(group, block, triton.cdiv(tokens, block))


def _channel_block(c: int) -> int:
    """Two rounds or more where the channels allow it: the only round of a loop is unrolled, at twice the registers."""
    return min(32, max(16, triton.next_power_of_2(c) // 2))


def _warps(dtype: torch.dtype) -> int:
    """fp32 products take registers by the dozen; half-precision ones take tensor cores and few instructions."""
    return 4 if dtype == torch.float32 else 2


def _cells(side: int, s: int) -> int:
    return (side + s - 1) // s


def _readable(x: Tensor) -> Tensor:
    """``x`` itself where channels are neighbours in memory, whatever its other strides, else a contiguous copy."""
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
    """Σ Q x of every tile and lane; given ``tokens``, Q is computed first, into ``affinity``, and Σ Q comes with it."""
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
    """Super tokens, and the normaliser if ``totals`` are given."""
    b, h, w = size
    c = parts.shape[-1]
    group, _, blocks = _tiling(s)
    tokens = parts.new_empty(b, h, w, c, dtype=dtype)
    normaliser = None if totals is None else parts.new_empty(b, h, w, 1)
    cells = b * h * w
    kernels.fold_kernel[(triton.cdiv(cells, 4), triton.cdiv(c, 64))](
        parts, totals, tokens, normaliser, cells, h, w, triton.cdiv(h, group), triton.cdiv(w, group),
        C=c, G=group, BLOCKS=blocks, BLOCK_N=4, BLOCK_C=64, NORMALISE=totals is not None, num_warps=2,
    )  # fmt: skip
    return tokens, normaliser


@torch.library.custom_op('mmstvit::sample_super_tokens', mutates_args=())
def _sample(x: Tensor, stoken_size: int, n_iter: int) -> tuple[Tensor, Tensor, Tensor]:
    x, s = _readable(x), stoken_size
    with torch.cuda.device_of(x):
        tokens = _means(x, s)
        b, h, w, _ = tokens.shape
        affinity = x.new_empty(b, h, w, s * s, 9, dtype=torch.float32)
        for _ in range(n_iter):
            parts, totals = _weighted_sums(x, affinity, s, tokens)
            tokens, normaliser = _fold(parts, totals, (b, h, w), s, x.dtype)
    return tokens, affinity, normaliser


@_sample.register_fake
def _(x, stoken_size, n_iter):
    b, height, width, c = x.shape
    h, w = _cells(height, stoken_size), _cells(width, stoken_size)
    return (
        x.new_empty(b, h, w, c),
        x.new_empty(b, h, w, stoken_size * stoken_size, 9, dtype=torch.float32),
        x.new_empty(b, h, w, 1, dtype=torch.float32),
    )


@torch.library.custom_op('mmstvit::upsample_super_tokens', mutates_args=())
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


@_upsample.register_fake
def _(tokens, affinity, height, width):
    return tokens.new_empty(tokens.shape[0], height, width, tokens.shape[3])


@torch.library.custom_op('mmstvit::aggregate', mutates_args=())
def _aggregate(x: Tensor, affinity: Tensor) -> Tensor:
    """Σ Q x for every super token, not normalised: the adjoint of upsampling."""
    x, affinity = _readable(x), affinity.contiguous()
    s = round(affinity.shape[3] ** 0.5)
    with torch.cuda.device_of(x):
        parts, _ = _weighted_sums(x, affinity, s)
        tokens, _ = _fold(parts, None, tuple(affinity.shape[:3]), s, x.dtype)
    return tokens


@_aggregate.register_fake
def _(x, affinity):
    return x.new_empty(*affinity.shape[:3], x.shape[3])


def _sample_context(ctx, inputs, output):
    x, _, _ = inputs
    _, affinity, normaliser = output
    ctx.size = x.shape[1:3]
    ctx.save_for_backward(affinity, normaliser)
    ctx.mark_non_differentiable(affinity, normaliser)
    ctx.set_materialize_grads(False)  # zeros of the association's size, for nothing


def _sample_backward(ctx, grad, *_):
    if grad is None:
        return None, None, None
    affinity, normaliser = ctx.saved_tensors
    return _upsample(*normalize_gradient(grad, affinity, normaliser), *ctx.size), None, None


def _upsample_context(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _upsample_backward(ctx, grad):
    (affinity,) = ctx.saved_tensors
    return _aggregate(grad, affinity), None, None, None


def _aggregate_context(ctx, inputs, output):
    x, affinity = inputs
    ctx.size = x.shape[1:3]
    ctx.save_for_backward(affinity)


def _aggregate_backward(ctx, grad):
    (affinity,) = ctx.saved_tensors
    return _upsample(grad, affinity, *ctx.size), None


_sample.register_autograd(_sample_backward, setup_context=_sample_context)
_upsample.register_autograd(_upsample_backward, setup_context=_upsample_context)
_aggregate.register_autograd(_aggregate_backward, setup_context=_aggregate_context)


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
    """Super token sampling; see :func:`mmstvit.ops.super_token.sample_super_tokens`.

    Args:
        x: Normalised map, (B, H, W, C), in fp32, fp16 or bf16; read in place where channels are neighbours in memory.
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
    tokens, affinity, _ = _sample(x, stoken_size, n_iter)
    return tokens, affinity


def upsample_super_tokens(tokens: Tensor, affinity: Tensor, size: tuple[int, int]) -> Tensor:
    """Token upsampling; see :func:`mmstvit.ops.super_token.upsample_super_tokens`.

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
    return _upsample(tokens, affinity, height, width)
