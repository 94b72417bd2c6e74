"""Super token attention as a module."""

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
    """

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

    def refine(self, tokens: Tensor) -> Tensor:
        """Self-attention among super tokens (Eqs. 9–10): (B, h, w, C) -> (B, h, w, C)."""
        qkv = self.qkv(tokens).flatten(1, 2)  # (B, h·w, 3C)
        dropout = self.attn_drop_rate if self.training else 0.0
        out = select(qkv).self_attention(qkv, self.num_heads, dropout)  # (B, h·w, C)
        return self.proj_drop(self.proj(out.view(tokens.shape)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) -> (B, H, W, C)."""
        if self.stoken_size == 1:
            return self.refine(x)
        ops = select(x)
        tokens, affinity = ops.sample_super_tokens(x, self.stoken_size, self.n_iter)
        return ops.upsample_super_tokens(self.refine(tokens), affinity, x.shape[1:3])

    def extra_repr(self) -> str:
        """Show the settings in ``print(model)``."""
        return f'num_heads={self.num_heads}, stoken_size={self.stoken_size}, n_iter={self.n_iter}'
