"""Super token attention written like the paper: the reference for :mod:`mmstvit.ops.super_token`.

It follows the published algorithm step by step, with the tools of the published code (NCHW maps, neighborhoods
gathered and scattered by convolutions with constant kernels, the whole attention map in memory). Nothing here is
optimized; every result of the fast path is compared with it.

Letters: B batch · C channels · H, W sides of the map · s side of a cell in tokens · h, w cells per side ·
Hp, Wp padded sides (h·s, w·s) · 9 the 3×3 neighborhood of a cell, row by row.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .super_token import add_branch, conv_ffn, linear, residual_dwconv, residual_dwconv_norm

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


def _neighbor_kernels(like: Tensor) -> Tensor:
    """Nine 3×3 kernels, the k-th with a one at position k: (9, 1, 3, 3)."""
    return torch.eye(9, dtype=like.dtype, device=like.device).reshape(9, 1, 3, 3)


def unfold(x: Tensor) -> Tensor:
    """Gather the 3×3 neighborhood of every position, zeros outside the map: (B, C, h, w) -> (B, C, 9, h, w)."""
    b, c, h, w = x.shape
    x = F.conv2d(x.reshape(b * c, 1, h, w), _neighbor_kernels(x), padding=1)
    return x.reshape(b, c, 9, h, w)


def fold(x: Tensor) -> Tensor:
    """Add nine contributions onto their neighbors, drop those outside the map: (B, C, 9, h, w) -> (B, C, h, w)."""
    b, c, _, h, w = x.shape
    x = F.conv_transpose2d(x.reshape(b * c, 9, h, w), _neighbor_kernels(x), padding=1)
    return x.reshape(b, c, h, w)


def sample_super_tokens(x: Tensor, stoken_size: int, n_iter: int = 1) -> tuple[Tensor, Tensor]:
    """Super token sampling (Eqs. 5–6); see :func:`mmstvit.ops.super_token.sample_super_tokens`."""
    s = stoken_size
    b, height, width, c = x.shape
    x = x.permute(0, 3, 1, 2)  # (B, C, H, W)
    x = F.pad(x, (0, -width % s, 0, -height % s))  # (B, C, Hp, Wp)
    h, w = x.shape[2] // s, x.shape[3] // s
    scale = c**-0.5

    # (B, C, Hp, Wp) -> (B, h·w, s², C): the tokens of each cell
    pixels = x.reshape(b, c, h, s, w, s).permute(0, 2, 4, 3, 5, 1).reshape(b, h * w, s * s, c)
    with torch.no_grad():
        tokens = F.adaptive_avg_pool2d(x, (h, w))  # (B, C, h, w): S⁰, the mean of each cell
    for _ in range(n_iter):
        with torch.no_grad():
            neighbors = unfold(tokens)  # (B, C, 9, h, w)
            neighbors = neighbors.permute(0, 3, 4, 1, 2).reshape(b, h * w, c, 9)
            affinity = (pixels @ neighbors * scale).softmax(dim=-1)  # (B, h·w, s², 9)
            total = affinity.sum(dim=2)  # (B, h·w, 9)
            total = fold(total.transpose(1, 2).reshape(b, 1, 9, h, w))  # (B, 1, h, w)
        tokens = pixels.transpose(-1, -2) @ affinity  # (B, h·w, C, 9)
        tokens = fold(tokens.permute(0, 2, 3, 1).reshape(b, c, 9, h, w))  # (B, C, h, w)
        tokens = tokens / (total + 1e-12)
    return tokens.permute(0, 2, 3, 1), affinity.reshape(b, h, w, s * s, 9)


def self_attention(qkv: Tensor, num_heads: int, dropout: float = 0.0) -> Tensor:
    """Multi-head self-attention (Eqs. 9–10); see :func:`mmstvit.ops.super_token.self_attention`."""
    b, n, c3 = qkv.shape
    d = c3 // 3 // num_heads
    q, k, v = qkv.transpose(1, 2).reshape(b, num_heads, 3 * d, n).chunk(3, dim=2)  # (B, heads, d, N) each
    attn = (k.transpose(-1, -2) @ q * d**-0.5).softmax(dim=-2)  # (B, heads, N keys, N queries)
    attn = F.dropout(attn, dropout)
    return (v @ attn).reshape(b, c3 // 3, n).transpose(1, 2)


def upsample_super_tokens(tokens: Tensor, affinity: Tensor, size: tuple[int, int]) -> Tensor:
    """Token upsampling (Eq. 11); see :func:`mmstvit.ops.super_token.upsample_super_tokens`."""
    b, h, w, c = tokens.shape
    s = int(affinity.shape[3] ** 0.5)
    neighbors = unfold(tokens.permute(0, 3, 1, 2))  # (B, C, 9, h, w)
    neighbors = neighbors.permute(0, 3, 4, 1, 2)  # (B, h, w, C, 9)
    x = neighbors @ affinity.transpose(-1, -2)  # (B, h, w, C, s²)
    x = x.reshape(b, h, w, c, s, s).permute(0, 1, 4, 2, 5, 3).reshape(b, h * s, w * s, c)
    return x[:, : size[0], : size[1]]
