"""Super token attention as a module."""

from collections.abc import Callable

from torch import Tensor, nn

from mmstvit.ops import select

from .linear import Linear


class SuperTokenAttention(nn.Module):
    """Super token attention, STA (Sec. 3.2 of the paper).

    With ``stoken_size`` 1 every token is its own super token, and the layer is plain multi-head self-attention over all
    tokens, as in the official implementation.

    Args:
        embed_dims: Channels C.
        num_heads: Attention heads; divides C.
        stoken_size: Side of a super token's cell, in tokens.
        n_iter: Sampling iterations.
        attn_drop_rate: Dropout of the attention weights.
        proj_drop_rate: Dropout after the output projection.

    Attributes:
        recorder: None, or a function by which others read a forward pass. It is called with the size (H, W) of the map,
            the association (B, h, w, s², 9), which is None with ``stoken_size`` 1, and the projections (B, h, w, 3C) of
            the super tokens. :mod:`mmstvit.visualization` sets it for the duration of a call.
    """

    recorder: Callable[[tuple[int, int], Tensor | None, Tensor], None] | None

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        stoken_size: int,
        n_iter: int = 1,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.stoken_size = stoken_size
        self.n_iter = n_iter
        self.attn_drop_rate = attn_drop_rate
        self.qkv = Linear(embed_dims, 3 * embed_dims)
        self.proj = Linear(embed_dims, embed_dims)
        self.proj_drop = nn.Dropout(proj_drop_rate)
        self.recorder = None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) -> (B, H, W, C)."""
        tokens, affinity = self.sample(x) if self.stoken_size > 1 else (x, None)
        qkv = self.qkv(tokens)  # (B, h, w, 3C)
        if self.recorder is not None:
            self.recorder(tuple(x.shape[1:3]), affinity, qkv)
        tokens = self.attend(qkv)
        return tokens if affinity is None else select(x).upsample_super_tokens(tokens, affinity, x.shape[1:3])

    def sample(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Sample super tokens (Eqs. 5–6): (B, H, W, C) -> (B, h, w, C), association (B, h, w, s², 9)."""
        return select(x).sample_super_tokens(x, self.stoken_size, self.n_iter)

    def attend(self, qkv: Tensor) -> Tensor:
        """Self-attention among super tokens (Eqs. 9–10): (B, h, w, 3C) -> (B, h, w, C)."""
        b, h, w, _ = qkv.shape
        dropout = self.attn_drop_rate if self.training else 0.0
        out = select(qkv).self_attention(qkv.flatten(1, 2), self.num_heads, dropout)  # (B, h·w, C)
        return self.proj_drop(self.proj(out.view(b, h, w, self.proj.in_features)))

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return f'num_heads={self.num_heads}, stoken_size={self.stoken_size}, n_iter={self.n_iter}'
