"""The convolutional FFN on CPU, one strip of the map at a time.

The hidden map is several times as large as the input: too large for the cache, and large enough that the allocator
asks the system for fresh pages on every call. At detection resolution that costs more than the arithmetic. The hidden
rows of a strip stay in the cache, and the next strip reuses their memory. For the backward pass only the input is kept:
computing a strip again is cheaper than writing its hidden rows to memory and reading them back.
"""

import functools
import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .dense import cast, linear, linear_backward, linear_gelu, residual_dwconv

# Hidden maps above these sizes are cut into strips. Without a gradient: those that would not stay in the cache. With
# one: those whose memory is worth computing the strips twice.
LARGE_BYTES = 4 << 20
LARGE_BYTES_WITH_GRAD = 16 << 20
# Hidden bytes of a strip: a few of them fit the last-level cache of today's processors.
STRIP_BYTES = 4 << 20
# The row above and the row below a strip are computed twice; strips of at least this many rows keep that cost small.
MIN_ROWS = 8

Strip = tuple[slice, int, int, int, int]


def conv_ffn(
    x: Tensor, w1: Tensor, b1: Tensor, wd: Tensor, bd: Tensor, w2: Tensor, b2: Tensor, residual: bool = True
) -> Tensor:
    """Convolutional FFN; see :func:`mmstvit.ops.super_token.conv_ffn`.

    Large maps are computed in strips, and the backward pass computes each strip again. Values and gradients are the
    same up to the order of sums. Strips have no second derivative.
    """
    weights = w1, b1, wd, bd, w2, b2
    if not _is_large(x, len(w1)):
        return _run(x, 0, 0, weights, residual)
    if torch.is_autocast_enabled('cpu') and torch.get_autocast_dtype('cpu') != torch.bfloat16:
        return _run(x, 0, 0, weights, residual)  # oneDNN does not compute every step in fp16
    return _ByStrips.apply(residual, *cast(x, *weights))


def _is_large(x: Tensor, hidden: int) -> bool:
    """Return True if the hidden map of (B, H, W, C), with ``hidden`` channels, is worth cutting into strips."""
    limit = LARGE_BYTES_WITH_GRAD if torch.is_grad_enabled() else LARGE_BYTES
    return x[..., 0].numel() * hidden * x.element_size() > limit


def _hidden(x: Tensor, weights: Sequence[Tensor], residual: bool) -> Tensor:
    """Compute the input of the last linear layer: (B, H, W, C) -> (B, H, W, rC)."""
    w1, b1, wd, bd = weights
    h = linear_gelu(x, w1, b1)
    if residual:
        return residual_dwconv(h, wd, bd)
    return F.conv2d(h.permute(0, 3, 1, 2), wd, bd, padding=1, groups=len(wd)).permute(0, 2, 3, 1)


def _strips(x: Tensor, hidden: int) -> list[Strip]:
    """Return (images, rows above, first row, last row, rows below): whole images if they fit, else parts of one."""
    batch, height, width, _ = x.shape
    row_bytes = width * hidden * x.element_size()
    images = STRIP_BYTES // (height * row_bytes)
    if images:
        return [(slice(i, i + images), 0, 0, height, 0) for i in range(0, batch, images)]
    count = -(-height // max(MIN_ROWS, STRIP_BYTES // row_bytes))
    edges = [height * i // count for i in range(count + 1)]
    rows = [(min(a, 1), a, b, min(height - b, 1)) for a, b in itertools.pairwise(edges)]
    return [(slice(i, i + 1), *strip) for i in range(batch) for strip in rows]


def _run(x: Tensor, above: int, below: int, weights: Sequence[Tensor], residual: bool) -> Tensor:
    """Compute the output of a strip that comes with the rows around it."""
    h = _hidden(x, weights[:4], residual)
    return linear(h[:, above : h.shape[1] - below], *weights[4:])


@functools.cache
def _raise_mmap_threshold() -> None:
    """Let the C library keep the memory of a strip for the next one.

    It takes a block above some size from the system and returns it when it is freed: the next use costs a page fault
    for every 4 KiB. The limit starts at 128 KiB and grows with the blocks that are freed, up to 32 MiB. Freeing one
    large block, never written to, raises it. An allocator without such a limit takes no notice.
    """
    torch.empty((32 << 20) - (64 << 10), dtype=torch.uint8, device='cpu')


class _ByStrips(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, residual: bool, x: Tensor, *weights: Tensor) -> Tensor:
        _raise_mmap_threshold()
        ctx.residual = residual
        ctx.save_for_backward(x, *weights)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        with torch.autocast('cpu', enabled=False):
            for images, above, top, bottom, below in _strips(x, len(weights[0])):
                part = x[images, top - above : bottom + below]
                out[images, top:bottom] = _run(part, above, below, weights, residual)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *weights = ctx.saved_tensors
        needs = ctx.needs_input_grad[1:]
        before_last = any(needs[:5])  # True if the gradient goes on to what is before the last linear layer
        weights = [w.detach().requires_grad_(need) for w, need in zip(weights, needs[1:], strict=True)]
        # In fp32 at least: what a strip adds to the sum over all others would vanish in half precision.
        sums = [
            torch.zeros_like(t, dtype=torch.promote_types(t.dtype, torch.float32)) if need else None
            for t, need in zip((x, *weights), needs, strict=True)
        ]
        with torch.autocast('cpu', enabled=False):
            for images, above, top, bottom, below in _strips(x, len(weights[0])):
                rows = images, slice(top - above, bottom + below)
                part = x[rows].detach().requires_grad_(needs[0])
                with torch.enable_grad():
                    h = _hidden(part, weights[:4], ctx.residual)
                    inner = h[:, above : h.shape[1] - below]
                # The output is not computed again, only what its gradient needs.
                grad_h, *last = linear_backward(grad[images, top:bottom], inner, weights[4], (before_last, *needs[5:]))
                wanted = [t for t in (part, *weights[:4]) if t.requires_grad]
                first = iter(torch.autograd.grad(inner, wanted, grad_h) if wanted else ())
                grads = [next(first) if need else None for need in needs[:5]] + last
                for total, part_grad in zip(sums, grads, strict=True):
                    if part_grad is not None:
                        (total[rows] if total is sums[0] else total).add_(part_grad)
        return None, *(None if total is None else total.to(x.dtype) for total in sums)
