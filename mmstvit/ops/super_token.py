"""Super token attention and the layers around it, for every device and dtype.

Maps are (B, H, W, C): a token's channels are neighbors in memory, so every step is a plain matrix product and no
layout copy is needed around the linear layers. Only the association (nine numbers per token) is kept for the backward
pass.

Letters: B batch · C channels · H, W sides of the map · s side of a cell in tokens · h, w cells per side ·
N tokens · 9 the 3×3 neighborhood of a cell, row by row.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor

# Guard of the official implementation against division by zero in the normalizer of Eq. 6.
EPS = 1e-12


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Disable autocast for the device of ``x`` if it is enabled; the meta device has none.

    torch.export cannot save a program with a context of autocast.
    """
    device = x.device.type
    if device == 'meta' or not torch.is_autocast_enabled(device):
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)


def is_traced() -> bool:
    """Return True while a compiler or tracer records a program, which should serve maps of all sizes."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def partition(x: Tensor, s: int) -> Tensor:
    """Cut a map into cells, zero-padding at the right and bottom: (B, H, W, C) -> (B, h, w, s², C)."""
    b, height, width, c = x.shape
    # A tracer must not see a branch on the size: the exported program would be for this size alone.
    if is_traced() or height % s or width % s:
        x = F.pad(x, (0, 0, 0, -width % s, 0, -height % s))
    h, w = x.shape[1] // s, x.shape[2] // s
    return x.reshape(b, h, s, w, s, c).transpose(2, 3).reshape(b, h, w, s * s, c)


def _neighbors(tokens: Tensor) -> Tensor:
    """Gather the 3×3 neighborhood of every cell, zeros outside the grid: (B, h, w, C) -> (B, h, w, 9, C)."""
    _, h, w, _ = tokens.shape
    padded = F.pad(tokens, (0, 0, 1, 1, 1, 1))
    return torch.stack([padded[:, k // 3 : k // 3 + h, k % 3 : k % 3 + w] for k in range(9)], dim=3)


def _fold(parts: Tensor) -> Tensor:
    """Add each cell's nine contributions onto its neighbors: (B, h, w, 9, C) -> (B, h, w, C).

    Contributions that fall outside the grid are dropped.
    """
    _, h, w, _, _ = parts.shape
    # Neighbor k of cell (i, j) is cell (i + k // 3 - 1, j + k % 3 - 1); seen from the receiving cell the offset
    # changes sign, which slicing the zero-padded parts at (2 - k // 3, 2 - k % 3) does.
    padded = F.pad(parts, (0, 0, 0, 0, 1, 1, 1, 1))
    shifted = [padded[:, 2 - k // 3 : 2 - k // 3 + h, 2 - k % 3 : 2 - k % 3 + w, k] for k in range(9)]
    total = shifted[0] + shifted[1]
    for part in shifted[2:]:
        total = total + part
    return total


def associate(cells: Tensor, tokens: Tensor) -> Tensor:
    """Compute the association of every token with the nine super tokens around its cell, outside the graph.

    Eq. 5: Q = softmax(X Sᵀ / √C). Neighbors outside the grid are zero vectors and take part in the softmax, as in the
    official implementation.

    Args:
        cells: Tokens by cell, (B, h, w, s², C).
        tokens: Super tokens, (B, h, w, C).

    Returns:
        Softmax over the nine neighbors, (B, h, w, s², 9), in fp32 (fp64 for fp64 input), without gradient.
    """
    # Autocast and half-precision weights must not round the logits: they decide which super token owns a token.
    dtype = torch.promote_types(cells.dtype, torch.float32)
    with torch.no_grad(), no_autocast(cells):
        neighbors = _neighbors(tokens.to(dtype)) * cells.shape[-1] ** -0.5
        # Neighbors as rows, (B, h, w, 9, s²): a softmax across rows runs on vectors, one along nine numbers does not.
        return (neighbors @ cells.to(dtype).transpose(-1, -2)).softmax(dim=-2).transpose(-1, -2)


def aggregate(cells: Tensor, affinity: Tensor) -> Tensor:
    """Compute the mean of the tokens weighted by the association (Eq. 6: S = Q̂ᵀ X, Q̂ normalized per super token).

    The gradient reaches ``cells`` through the weighted sum alone; association and normalizer are constants.

    Args:
        cells: Tokens by cell, (B, h, w, s², C).
        affinity: Association, (B, h, w, s², 9).

    Returns:
        Super tokens, (B, h, w, C), in the dtype of ``cells``.
    """
    with no_autocast(cells):
        total = total_weights(affinity)
        if cells.dtype == torch.float16:
            return weighted_sums(cells, normalize(affinity, total)).to(cells.dtype)
        return (weighted_sums(cells, affinity) / total).to(cells.dtype)


def weighted_sums(cells: Tensor, affinity: Tensor) -> Tensor:
    """Compute Σ Q x for every super token, in the dtype of Q: (B, h, w, s², C), (B, h, w, s², 9) -> (B, h, w, C)."""
    sums = affinity.to(cells.dtype).transpose(-1, -2) @ cells  # (B, h, w, 9, C)
    return _fold(sums.to(affinity.dtype))


@torch.no_grad()
def total_weights(affinity: Tensor) -> Tensor:
    """Compute Σ Q, the normalizer of Eq. 6, outside the graph: (B, h, w, s², 9) -> (B, h, w, 1)."""
    return _fold(affinity.sum(dim=3).unsqueeze(-1)) + EPS


def normalize(affinity: Tensor, total: Tensor) -> Tensor:
    """Divide the association by the normalizer of the super token that each weight is for: Q̂ of Eq. 6.

    This is for fp16. A super token to which hardly any token belongs has a normalizer near 0. A gradient divided by it
    is Inf, and NaN once it is multiplied by a Q of 0. Weights that add up to one do not overflow.

    Args:
        affinity: Association, (B, h, w, s², 9).
        total: Normalizer, (B, h, w, 1).

    Returns:
        (B, h, w, s², 9); 0 where the super token is outside the grid.
    """
    return affinity * _neighbors(1 / total).transpose(-1, -2)  # (B, h, w, 1, 9)


def normalize_gradient(grad: Tensor, affinity: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Prepare the arguments with which :func:`upsample_super_tokens` computes the gradient of :func:`aggregate`.

    Args:
        grad: Gradient of the super tokens, (B, h, w, C).
        affinity: Association, (B, h, w, s², 9).
        total: Normalizer, (B, h, w, 1).

    Returns:
        Super tokens and an association, one of them divided by the normalizer: the association in fp16, where the
        other could overflow, else the gradient, which is smaller.
    """
    if grad.dtype == torch.float16:
        return grad, normalize(affinity, total)
    return (grad / total).to(grad.dtype), affinity


def sample_super_tokens(x: Tensor, stoken_size: int, n_iter: int = 1) -> tuple[Tensor, Tensor]:
    """Sample super tokens (Sec. 3.2.1, Eqs. 5–6).

    Args:
        x: Normalized map, (B, H, W, C). It is zero-padded at the right and bottom to a multiple of ``stoken_size``;
            as in the official implementation the padding is not masked anywhere.
        stoken_size: Side s of a cell, in tokens.
        n_iter: Sampling iterations; the association of the last one is returned.

    Returns:
        Super tokens (B, h, w, C) and association (B, h, w, s², 9), with h = ⌈H / s⌉ and w = ⌈W / s⌉. Only the last
        weighted sum carries gradient.
    """
    cells = partition(x, stoken_size)
    with torch.no_grad():
        tokens = cells.mean(dim=3)
        for _ in range(n_iter - 1):
            tokens = aggregate(cells, associate(cells, tokens))
    affinity = associate(cells, tokens)
    return aggregate(cells, affinity), affinity


def split_heads(qkv: Tensor, num_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values, (B, heads, N, d) each, as views of the projections (B, N, 3C)."""
    b, n, c3 = qkv.shape
    parts = qkv.reshape(b, n, num_heads, 3, c3 // 3 // num_heads).unbind(3)
    # Split in this order, the gradients come together in a single copy.
    return tuple(t.transpose(1, 2) for t in parts)


def self_attention(qkv: Tensor, num_heads: int, dropout: float = 0.0) -> Tensor:
    """Compute multi-head self-attention with scale head_dim^-0.5 (Eqs. 9–10).

    Args:
        qkv: Projections, (B, N, 3C); channels are laid out per head: head 0's q, k, v, then head 1's q, k, v, …
        num_heads: Number of heads; divides C.
        dropout: Drop probability of the attention weights; the caller passes 0 outside training.

    Returns:
        (B, N, C)
    """
    q, k, v = split_heads(qkv, num_heads)
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    b, n, c3 = qkv.shape
    return out.transpose(1, 2).reshape(b, n, c3 // 3)


def upsample_super_tokens(tokens: Tensor, affinity: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample super tokens (Eq. 11): a token is the sum of the nine super tokens around it, weighted by association.

    Args:
        tokens: Super tokens, (B, h, w, C).
        affinity: Association, (B, h, w, s², 9).
        size: Height and width of the map before padding.

    Returns:
        (B, H, W, C), the padding cropped away.
    """
    b, h, w, c = tokens.shape
    s = int(affinity.shape[3] ** 0.5)
    with no_autocast(tokens):
        cells = affinity.to(tokens.dtype) @ _neighbors(tokens)  # (B, h, w, s², C)
    x = cells.reshape(b, h, w, s, s, c).transpose(2, 3).reshape(b, h * s, w * s, c)
    return x[:, : size[0], : size[1]]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply a linear layer: (B, H, W, C), weights (C', C) -> (B, H, W, C')."""
    return F.linear(x, weight, bias)


def residual_dwconv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute ``x + dwconv3x3(x)`` with zero padding: (B, H, W, C), weights (C, 1, 3, 3) -> (B, H, W, C)."""
    maps = x.permute(0, 3, 1, 2)  # (B, C, H, W) in channels_last format
    return (maps + F.conv2d(maps, weight, bias, padding=1, groups=x.shape[3])).permute(0, 2, 3, 1)


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Normalize over channels, in the dtype of the map also under autocast; sums are in fp32 at least."""
    with no_autocast(x):
        # Not the shape of x, which is no constant to a tracer.
        return F.layer_norm(x, gamma.shape, gamma.to(x.dtype), beta.to(x.dtype), eps)


def residual_dwconv_norm(
    x: Tensor, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Compute :func:`residual_dwconv` and :func:`layer_norm` of its result; return both, (B, H, W, C)."""
    x = residual_dwconv(x, weight, bias)
    return x, layer_norm(x, gamma, beta, eps)


def add_branch(x: Tensor, branch: Tensor, gamma: Tensor | None = None, factor: Tensor | None = None) -> Tensor:
    """Add the result of a residual branch, ``x + factor · γ · branch`` (Eqs. 2–3).

    Args:
        x: Map, (B, H, W, C).
        branch: Result of the branch, (B, H, W, C).
        gamma: Layer scale, (C); None is 1.
        factor: Stochastic depth, (B), in fp32 whatever the dtype of the map; None is 1.

    Returns:
        (B, H, W, C)
    """
    branch = branch if gamma is None else gamma * branch
    return x + (branch if factor is None else _ScaleImages.apply(branch, factor))


class _ScaleImages(torch.autograd.Function):
    """Multiply images (B, …) by factors (B), in the precision of the factors, and round to the dtype of the images."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return torch.mul(x, factor.view(-1, *[1] * (x.dim() - 1)), out=torch.empty_like(x))

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> tuple[Tensor, None]:
        return _ScaleImages.apply(grad, *ctx.saved_tensors), None


def conv_ffn(
    x: Tensor, w1: Tensor, b1: Tensor, wd: Tensor, bd: Tensor, w2: Tensor, b2: Tensor, residual: bool = True
) -> Tensor:
    """Compute the convolutional FFN (Eq. 3): linear, GELU, ``h + dwconv3x3(h)``, linear.

    Args:
        x: Map, (B, H, W, C).
        w1: Weights of the first linear layer, (rC, C).
        b1: Its bias, (rC).
        wd: Weights of the depthwise convolution, (rC, 1, 3, 3).
        bd: Its bias, (rC).
        w2: Weights of the second linear layer, (C, rC).
        b2: Its bias, (C).
        residual: Add ``h``; False if the depthwise kernel already contains the identity.

    Returns:
        (B, H, W, C)
    """
    h = F.gelu(linear(x, w1, b1))
    if residual:
        h = residual_dwconv(h, wd, bd)
    else:
        h = F.conv2d(h.permute(0, 3, 1, 2), wd, bd, padding=1, groups=len(wd)).permute(0, 2, 3, 1)
    return linear(h, w2, b2)
