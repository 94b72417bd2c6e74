"""The super token transformer (STT) block (Fig. 3 of the paper).

Maps are (B, H, W, C) between the layers. A convolution or BatchNorm sees the same memory as an NCHW tensor in
channels_last format, so no step copies for the sake of the layout.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmstvit.compat import has_module_hooks
from mmstvit.ops import select

from .attention import SuperTokenAttention
from .fold import affine_of, fold_after, fold_before
from .linear import Linear, ResidualDepthwiseConv
from .norm import BatchNorm2d, LayerNorm

_HOOKS = ('_forward_hooks', '_forward_pre_hooks', '_backward_hooks', '_backward_pre_hooks')


def are_plain(layers: Mapping[nn.Module, type[nn.Module]]) -> bool:
    """Return True if one fused operator can take the place of layers.

    It cannot if there is another type of layer, a hook of a layer or of all modules (FLOP counters have these), or a
    ``forward`` that was set on a layer. ``torch.profiler`` shows the fused operator, because it runs.

    Args:
        layers: The layers and the types that they should have.
    """
    if has_module_hooks() or any(type(layer) is not kind for layer, kind in layers.items()):
        return False
    return not any('forward' in vars(layer) or any(getattr(layer, name) for name in _HOOKS) for layer in layers)


class STViTFFN(nn.Module):
    """Convolutional FFN: linear C→rC, GELU, dropout, ``h + dwconv3x3(h)``, linear rC→C, dropout.

    Args:
        embed_dims: Channels C.
        mlp_ratio: Expansion r.
        drop_rate: Dropout after the activation and at the end.
    """

    def __init__(self, embed_dims: int, mlp_ratio: float = 4.0, drop_rate: float = 0.0) -> None:
        super().__init__()
        hidden = int(embed_dims * mlp_ratio)
        self.fc1 = Linear(embed_dims, hidden)
        self.dwconv = ResidualDepthwiseConv(hidden)
        self.fc2 = Linear(hidden, embed_dims)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) -> (B, H, W, C)."""
        if self._is_plain():
            weights = [t for layer in (self.fc1, self.dwconv, self.fc2) for t in layer.cast()]
            return select(x).conv_ffn(x, *weights, self.dwconv.residual)
        return self.drop(self.fc2(self.dwconv(self.drop(F.gelu(self.fc1(x))))))

    def _is_plain(self) -> bool:
        """Return True if one operator can take the place of the layers: without dropout."""
        layers = {self.fc1: Linear, self.dwconv: ResidualDepthwiseConv, self.fc2: Linear, self.drop: nn.Dropout}
        return not (self.training and self.drop.p > 0) and are_plain(layers)


class STViTBlock(nn.Module):
    """One block: ``x += dwconv(x)``, ``x += γ1·STA(LN(x))``, ``x += γ2·FFN(BN(x))`` (Eqs. 1–3 of the paper).

    The norm before the FFN is BatchNorm, as in the official implementation.

    Args:
        embed_dims: Channels C.
        num_heads: Attention heads.
        stoken_size: Side of a super token's cell, in tokens.
        n_iter: Sampling iterations.
        mlp_ratio: Expansion of the FFN.
        drop_rate: Dropout of the projection and the FFN.
        attn_drop_rate: Dropout of the attention weights.
        layer_scale_init_value: Initial value of γ1 and γ2, learned per channel; 0 means no layer scale.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        stoken_size: int,
        n_iter: int = 1,
        mlp_ratio: float = 4.0,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        layer_scale_init_value: float = 0.0,
    ) -> None:
        super().__init__()
        # norm2 comes first: mmcv.cnn.fuse_conv_bn folds a BatchNorm into the last convolution registered before it.
        self.norm2 = BatchNorm2d(embed_dims)
        self.pos_embed = ResidualDepthwiseConv(embed_dims)
        self.norm1 = LayerNorm(embed_dims, eps=1e-6)
        self.attn = SuperTokenAttention(embed_dims, num_heads, stoken_size, n_iter, attn_drop_rate, drop_rate)
        self.ffn = STViTFFN(embed_dims, mlp_ratio, drop_rate)
        if layer_scale_init_value > 0:
            self.gamma1 = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))
            self.gamma2 = nn.Parameter(torch.full((embed_dims,), float(layer_scale_init_value)))
        else:
            self.gamma1 = self.gamma2 = None

    def forward(self, x: Tensor, drop_path: Tensor | None = None) -> Tensor:
        """Compute the block.

        Args:
            x: Map, (B, H, W, C).
            drop_path: Factors of stochastic depth for both branches, (2, B); used in training mode.

        Returns:
            (B, H, W, C)
        """
        factor1, factor2 = (None, None) if drop_path is None or not self.training else drop_path
        x, normed = self._embed_position(x)
        attn = self.attn(normed)
        x = select(x).add_branch(x, attn, self.gamma1, factor1)
        ffn = self.ffn(self.norm2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return select(x).add_branch(x, ffn, self.gamma2, factor2)

    def _embed_position(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map with its position embedding, and the LayerNorm of it."""
        conv, norm = self.pos_embed, self.norm1
        if are_plain({conv: ResidualDepthwiseConv, norm: LayerNorm}) and conv.residual:
            weights = *conv.cast(), *norm.affine(x)
            return select(x).residual_dwconv_norm(x, *weights, norm.eps)
        x = conv(x)
        return x, norm(x)

    def switch_to_deploy(self) -> None:
        """Fold norm2, the layer scales and the identities of the depthwise convolutions into the weights.

        Upsampling is linear in the super tokens, so γ1 may scale them instead of the tokens. LayerNorm stays: its
        statistics are those of the data.
        """
        if isinstance(self.norm2, nn.Identity):
            return
        fold_before(self.ffn.fc1, *affine_of(self.norm2))
        self.norm2 = nn.Identity()
        if self.gamma1 is not None:
            fold_after(self.attn.proj, self.gamma1)
            fold_after(self.ffn.fc2, self.gamma2)
            self.gamma1 = self.gamma2 = None
        self.pos_embed.switch_to_deploy()
        self.ffn.dwconv.switch_to_deploy()
