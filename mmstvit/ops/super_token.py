"""Super token attention, the fast path: sampling, self-attention and upsampling on channels-last maps.

Maps are (B, H, W, C) here: a token's channels are neighbours in memory, so every step is a plain matrix product and
no layout copy is needed around the linear layers. The 3×3 neighbourhood of a cell is read through a strided view of
the zero-padded super tokens; only the association (nine numbers per token) is kept for the backward pass.

Letters: B batch · C channels · H, W sides of the map · s side of a cell in tokens · h, w cells per side ·
N tokens · 9 the 3×3 neighbourhood of a cell, row by row.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor

from . import row_attention
from .dense import is_traced, runs_onednn

# The release's guard against division by zero in the normaliser of Eq. 5.
EPS = 1e-12


def _no_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Switch autocast off for the device of ``x``; the meta device has none."""
    device = x.device.type
    return torch.autocast(device, enabled=False) if device != 'meta' else contextlib.nullcontext()


def partition(x: Tensor, s: int) -> Tensor:
    """Cut a map into cells, zero-padding at the right and bottom: (B, H, W, C) -> (B, h, w, s², C)."""
    b, height, width, c = x.shape
    if height % s or width % s:
        x = F.pad(x, (0, 0, 0, -width % s, 0, -height % s))
    h, w = x.shape[1] // s, x.shape[2] // s
    return x.reshape(b, h, s, w, s, c).transpose(2, 3).reshape(b, h, w, s * s, c)


def _neighbours(tokens: Tensor) -> Tensor:
    """The 3×3 neighbourhood of every cell, zeros outside the grid: (B, h, w, C) -> (B, h, w, 9, C)."""
    b, h, w, c = tokens.shape
    padded = F.pad(tokens, (0, 0, 1, 1, 1, 1))
    windows = padded.unfold(1, 3, 1).unfold(2, 3, 1)  # (B, h, w, C, 3, 3), a view
    return windows.permute(0, 1, 2, 4, 5, 3).reshape(b, h, w, 9, c)


def _fold(parts: Tensor) -> Tensor:
    """Add each cell's nine contributions onto its neighbours: (B, h, w, 9, C) -> (B, h, w, C).

    Contributions that fall outside the grid are dropped.
    """
    _, h, w, _, _ = parts.shape
    # Neighbour k of cell (i, j) is cell (i + k // 3 - 1, j + k % 3 - 1); seen from the receiving cell the offset
    # changes sign, which slicing the zero-padded parts at (2 - k // 3, 2 - k % 3) does.
    padded = F.pad(parts, (0, 0, 0, 0, 1, 1, 1, 1))
    shifted = [padded[:, 2 - k // 3 : 2 - k // 3 + h, 2 - k % 3 : 2 - k % 3 + w, k] for k in range(9)]
    total = shifted[0] + shifted[1]
    for part in shifted[2:]:
        total = total + part
    return total


def associate(cells: Tensor, tokens: Tensor) -> Tensor:
    """Association of every token with the nine super tokens around its cell, outside the graph.

    Eq. 4: Q = softmax(X Sᵀ / √C). Neighbours outside the grid are zero vectors and take part in the softmax, as in the
    release.

    Args:
        cells: Tokens by cell, (B, h, w, s², C).
        tokens: Super tokens, (B, h, w, C).

    Returns:
        Softmax over the nine neighbours, (B, h, w, s², 9), in fp32 (fp64 for fp64 input), without gradient.
    """
    # Autocast and half-precision weights must not round the logits: they decide which super token owns a token.
    dtype = torch.promote_types(cells.dtype, torch.float32)
    with torch.no_grad(), _no_autocast(cells):
        neighbours = _neighbours(tokens.to(dtype)) * cells.shape[-1] ** -0.5
        # Neighbours as rows, (B, h, w, 9, s²): a softmax across rows runs on vectors, one along nine numbers does not.
        return (neighbours @ cells.to(dtype).transpose(-1, -2)).softmax(dim=-2).transpose(-1, -2)


def aggregate(cells: Tensor, affinity: Tensor) -> Tensor:
    """Weighted mean of the tokens under the association (Eq. 5: S = Q̂ᵀ X, Q̂ normalised per super token).

    The gradient reaches ``cells`` through the weighted sum alone; association and normaliser are constants.

    Args:
        cells: Tokens by cell, (B, h, w, s², C).
        affinity: Association, (B, h, w, s², 9).

    Returns:
        Super tokens, (B, h, w, C), in the dtype of ``cells``.
    """
    with _no_autocast(cells):
        total = total_weights(affinity)
        if cells.dtype == torch.float16:
            return weighted_sums(cells, normalise(affinity, total)).to(cells.dtype)
        return (weighted_sums(cells, affinity) / total).to(cells.dtype)


def weighted_sums(cells: Tensor, affinity: Tensor) -> Tensor:
    """Σ Q x for every super token: (B, h, w, s², C), (B, h, w, s², 9) -> (B, h, w, C), in the association's dtype."""
    sums = affinity.to(cells.dtype).transpose(-1, -2) @ cells  # (B, h, w, 9, C)
    return _fold(sums.to(affinity.dtype))


@torch.no_grad()
def total_weights(affinity: Tensor) -> Tensor:
    """Σ Q for every super token, the normaliser of Eq. 5, outside the graph: (B, h, w, s², 9) -> (B, h, w, 1)."""
    return _fold(affinity.sum(dim=3).unsqueeze(-1)) + EPS


def normalise(affinity: Tensor, total: Tensor) -> Tensor:
    """The association, over the normaliser of the super token that a weight is for: Q̂ of Eq. 5.

    For fp16. A super token that hardly any token belongs to has a normaliser near 0, and a gradient over that is Inf
    there, and NaN once it is multiplied by a Q of 0. Weights that add up to one overflow nowhere.

    Args:
        affinity: Association, (B, h, w, s², 9).
        total: Normaliser, (B, h, w, 1).

    Returns:
        (B, h, w, s², 9); 0 where the super token is outside the grid.
    """
    return affinity * _neighbours(1 / total).transpose(-1, -2)  # (B, h, w, 1, 9)


def normalise_gradient(grad: Tensor, affinity: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """What :func:`upsample_super_tokens` makes the gradient of :func:`aggregate` of.

    Args:
        grad: Gradient of the super tokens, (B, h, w, C).
        affinity: Association, (B, h, w, s², 9).
        total: Normaliser, (B, h, w, 1).

    Returns:
        Super tokens and an association, one of them over the normaliser: the association where the other could overflow
        (fp16), else the gradient, which is the smaller.
    """
    if grad.dtype == torch.float16:
        return grad, normalise(affinity, total)
    return (grad / total).to(grad.dtype), affinity


def sample_super_tokens(x: Tensor, stoken_size: int, n_iter: int = 1) -> tuple[Tensor, Tensor]:
    """Super token sampling (Sec. 3.2, Eqs. 4–5).

    Args:
        x: Normalised map, (B, H, W, C). It is zero-padded at the right and bottom to a multiple of ``stoken_size``;
            as in the release the padding is not masked anywhere.
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


def self_attention(qkv: Tensor, num_heads: int, dropout: float = 0.0) -> Tensor:
    """Multi-head self-attention with scale head_dim^-0.5 (Eq. 6).

    Args:
        qkv: Projections, (B, N, 3C); channels are laid out per head: head 0's q, k, v, then head 1's q, k, v, …
        num_heads: Number of heads; divides C.
        dropout: Drop probability of the attention weights; the caller passes 0 outside training.

    Returns:
        (B, N, C)
    """
    b, n, c3 = qkv.shape
    d = c3 // 3 // num_heads
    parts = qkv.reshape(b, n, num_heads, 3, d).unbind(3)
    if torch.compiler.is_compiling() and torch.is_grad_enabled():
        # Inductor keeps copies for the backward pass, which it expects in the strides that it saw first (torch 2.11);
        # views of a tensor in this order have the strides of a copy, for any N.
        parts = torch.stack(parts).unbind()
    # (B, heads, N, d) each, as views. Taken apart in this order, the gradients come together in a single copy.
    q, k, v = (t.transpose(1, 2) for t in parts)
    ours = dropout == 0 and runs_onednn(qkv) and not is_traced()
    if ours and n >= row_attention.MIN_TOKENS:
        out = row_attention.attend_by_rows(q, k, v)
    elif ours and qkv.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        out = row_attention.attend_whole(q, k, v)
    else:
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout)
    return out.transpose(1, 2).reshape(b, n, c3 // 3)


def upsample_super_tokens(tokens: Tensor, affinity: Tensor, size: tuple[int, int]) -> Tensor:
    """Token upsampling (Eq. 7): every token is the association-weighted sum of the nine super tokens around it.

    Args:
        tokens: Super tokens, (B, h, w, C).
        affinity: Association, (B, h, w, s², 9).
        size: Height and width of the map before padding.

    Returns:
        (B, H, W, C), the padding cropped away.
    """
    b, h, w, c = tokens.shape
    s = int(affinity.shape[3] ** 0.5)
    with _no_autocast(tokens):
        cells = affinity.to(tokens.dtype) @ _neighbours(tokens)  # (B, h, w, s², C)
    x = cells.reshape(b, h, w, s, s, c).transpose(2, 3).reshape(b, h * s, w * s, c)
    return x[:, : size[0], : size[1]]
