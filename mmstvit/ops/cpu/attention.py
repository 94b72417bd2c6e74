"""CPU self-attention: PyTorch's fused kernel, or oneDNN matmul in row chunks where that is faster.

Which one is faster for long sequences depends on processor, dtype and threads: :func:`choose_attention`. With row
chunks, the rows at work stay in the cache. For the backward pass only queries, keys and values are kept, and the rows
are computed again.

Letters: B batch · N tokens · d channels per head · R rows.
"""

import functools
import os
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmstvit.compat import ONEDNN_LINEAR

from .. import super_token

# 'rows' or 'sdpa' (PyTorch's kernel); anything else is refused. Not set: the faster one.
VARIABLE = 'MMSTVIT_CPU_ATTENTION'
# With fewer tokens PyTorch's fused kernel is as fast in fp32.
MIN_TOKENS = 512
MEASURED_TOKENS = 1024
# Bytes of the rows at work: they should fit the last-level cache a few times.
ROWS_BYTES = 3 << 20
MIN_ROWS = 64


def self_attention(qkv: Tensor, num_heads: int, dropout: float = 0.0) -> Tensor:
    """Multi-head self-attention; see :func:`mmstvit.ops.super_token.self_attention`."""
    few = qkv.shape[1] < MIN_TOKENS
    if few and qkv.dtype == torch.bfloat16 and dropout == 0 and not torch.is_grad_enabled():
        attend = attend_whole
    elif few or dropout > 0 or choose_attention(qkv.dtype) == 'sdpa':
        return super_token.self_attention(qkv, num_heads, dropout)
    else:
        attend = attend_by_rows
    q, k, v = super_token.split_heads(qkv, num_heads)
    b, n, c3 = qkv.shape
    return attend(q, k, v).transpose(1, 2).reshape(b, n, c3 // 3)


def choose_attention(dtype: torch.dtype) -> str:
    """Return ``'rows'`` or ``'sdpa'``, the way to compute attention among many tokens.

    Both have the same values and gradients up to rounding. Without gradients the faster one is measured, once per
    process. With gradients the dtype decides, so that another process repeats a training run bit for bit.

    Raises:
        ValueError: The environment variable ``MMSTVIT_CPU_ATTENTION`` has another value.
    """
    name = os.environ.get(VARIABLE)
    if name and name not in ('rows', 'sdpa'):
        raise ValueError(f"The environment variable {VARIABLE} must be 'rows' or 'sdpa', but got {name!r}.")
    if ONEDNN_LINEAR is None:
        return 'sdpa'
    if torch.is_grad_enabled():
        return name or ('rows' if dtype == torch.bfloat16 else 'sdpa')
    return name or _measure(dtype, torch.get_num_threads())


@functools.cache
def _measure(dtype: torch.dtype, threads: int) -> str:
    """Return the faster one for one head: the shortest of three runs of some milliseconds each."""
    qkv = torch.ones(3, 1, 1, MEASURED_TOKENS, 64, dtype=dtype)  # drawn numbers would change those of the user
    seconds = {'rows': [], 'sdpa': []}
    with torch.no_grad(), torch.autocast('cpu', enabled=False):
        for _ in range(3):
            for name, attend in (('rows', attend_by_rows), ('sdpa', F.scaled_dot_product_attention)):
                start = time.perf_counter()
                attend(*qkv)
                seconds[name].append(time.perf_counter() - start)
    return min(seconds, key=lambda name: min(seconds[name]))


def attend_by_rows(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute :func:`torch.nn.functional.scaled_dot_product_attention` for fp32 and bf16 on CPU.

    Values and gradients are the same up to the order of sums. There is no second derivative.

    Args:
        q: Queries, (B, heads, N, d), in any strides.
        k: Keys, of the same shape.
        v: Values, of the same shape.

    Returns:
        (B, heads, N, d), a view of (B, N, heads, d)
    """
    return _AttendByRows.apply(q, k, v)


def attend_whole(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute :func:`attend_by_rows` with the maps of all heads at once, for few tokens in bf16.

    There the batched product is oneDNN's, and twice as fast as the fused kernel. Logits are rounded to bf16, as in the
    official implementation under autocast.
    """
    return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Compute a bᵀ: (M, K), (N, K) -> (M, N)."""
    return ONEDNN_LINEAR(a, b, None, 'none', [], '')


def _heads(x: Tensor) -> Iterator[tuple[int, int]]:
    return ((image, head) for image in range(x.shape[0]) for head in range(x.shape[1]))


def _rows(x: Tensor) -> Iterator[slice]:
    n = x.shape[2]
    step = max(MIN_ROWS, ROWS_BYTES // (n * x.element_size()))
    return (slice(top, min(top + step, n)) for top in range(0, n, step))


class _AttendByRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(q, k, v)
        b, heads, n, d = q.shape
        out = q.new_empty(b, n, heads, d).transpose(1, 2)
        for at in _heads(q):
            queries, keys = (q[at] * d**-0.5).contiguous(), k[at].contiguous()
            values_t = v[at].t().contiguous()  # (d, N)
            for rows in _rows(q):
                attn = _product(queries[rows], keys).softmax(dim=-1)  # (R, N)
                out[at][rows] = _product(attn, values_t)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = ctx.saved_tensors
        n, d = q.shape[2:]
        grads = [torch.empty_like(t.transpose(1, 2), memory_format=torch.contiguous_format) for t in (q, k, v)]
        grad_q, grad_k, grad_v = (t.transpose(1, 2) for t in grads)
        for at in _heads(q):
            queries, keys, values = (q[at] * d**-0.5).contiguous(), k[at].contiguous(), v[at].contiguous()
            keys_t = keys.t().contiguous()
            # Sums over all rows, in fp32 whatever the dtype: (d, N)
            sum_k, sum_v = (q.new_zeros(d, n, dtype=torch.float32) for _ in range(2))
            for rows in _rows(q):
                grad_out = grad[at][rows].contiguous()
                attn = _product(queries[rows], keys).softmax(dim=-1)  # (R, N)
                sum_v += _product(grad_out.t().contiguous(), attn.t())
                grad_attn = _product(grad_out, values)
                grad_logits = torch._softmax_backward_data(grad_attn, attn, -1, attn.dtype)
                sum_k += _product(queries[rows].t().contiguous(), grad_logits.t())
                grad_q[at][rows] = _product(grad_logits, keys_t) * d**-0.5
            grad_k[at], grad_v[at] = sum_k.t(), sum_v.t()
        return grad_q, grad_k, grad_v
