"""The models of the paper's ablations (Tables 6, 7 and 9): STViT with some of its layers replaced.

The paper names the variants and prints their parameters and FLOPs; the official implementation does not have them. They
are derived from both. Where several designs fit the numbers, the one of Swin or of the rest of STViT is taken.

Maps are (B, H, W, C) between the layers.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmstvit.arch import NUM_STAGES, is_number, per_stage, positive_integer
from mmstvit.layers import SuperTokenAttention
from mmstvit.layers.linear import ResidualDepthwiseConv
from mmstvit.ops.super_token import associate, partition, split_heads
from mmstvit.registry import MODELS

from .stvit import STViT

STEMS = ('conv', 'patch')
POSITION_EMBEDDINGS = ('cpe', 'ape', 'rpe', None)
FFNS = ('conv', 'conv_without_shortcut', 'plain')


@MODELS.register_module()
class STViTAblation(STViT):
    """STViT with layers replaced, for the ablations of the paper.

    Without arguments it is STViT-S. ``STViTAblation(stem='patch', pos_embed=None, ffn='plain')`` is STA-4stage, the
    first row of Table 6.

    Args:
        arch: See :class:`STViT`.
        stem: ``'conv'``, the four convolutions of STViT, or ``'patch'``, one 4×4 convolution with stride 4, and
            BatchNorm.
        pos_embed: ``'cpe'``, the depthwise convolution of STViT; ``'ape'``, a learned vector per position, added after
            the stem; ``'rpe'``, a learned bias of the attention per head and distance between two super tokens, as
            between the tokens of a window in Swin; or None.
        ffn: ``'conv'``, the FFN of STViT; ``'conv_without_shortcut'``, in which the convolution replaces its input
            instead of adding to it; or ``'plain'``, without convolution.
        n_iter: Sampling iterations, one number or one per stage. With 0 the super tokens are the means of their cells,
            and the association serves the upsampling alone. The gradient passes through the means.
        stoken_size: See :class:`STViT`.
        img_size: Side of the square image, in pixels. ``'ape'`` and ``'rpe'`` take no other.
        out_indices: See :class:`STViT`.
        drop_path_rate: See :class:`STViT`.
        deploy: See :class:`STViT`.
        init_cfg: See :class:`STViT`.

    Raises:
        ValueError: An argument is out of range.

    Attributes:
        img_size: Side of the images; None if the model takes images of any size.
    """

    def __init__(
        self,
        arch: str | Mapping = 'small',
        stem: str = 'conv',
        pos_embed: str | None = 'cpe',
        ffn: str = 'conv',
        n_iter: int | Sequence[int] = 1,
        stoken_size: Sequence[int] | None = None,
        img_size: int = 224,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        deploy: bool = False,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        for name, value, known in (
            ('stem', stem, STEMS),
            ('pos_embed', pos_embed, POSITION_EMBEDDINGS),
            ('ffn', ffn, FFNS),
        ):
            if value not in known:
                raise ValueError(f'{name} must be one of {", ".join(map(repr, known))}, but got {value!r}.')
        n_iter = per_stage('n_iter', (n_iter,) * NUM_STAGES if is_number(n_iter, int) else n_iter, int, 0)
        super().__init__(
            arch,
            out_indices=out_indices,
            n_iter=[max(number, 1) for number in n_iter],
            stoken_size=stoken_size,
            drop_path_rate=drop_path_rate,
            init_cfg=init_cfg,
        )
        side = -(-positive_integer('img_size', img_size) // 4)
        self.img_size = img_size if pos_embed in ('ape', 'rpe') else None
        channels = self.arch.channels
        if stem == 'patch':
            self.patch_embed = PatchStem(self.in_channels, channels[0])
        if pos_embed == 'ape':
            self.patch_embed = nn.Sequential(self.patch_embed, AbsolutePosition(side, channels[0]))
        for stage, blocks in enumerate(self.stages):
            num_heads, size = self.arch.num_heads[stage], self.arch.stoken_size[stage]
            cells = -(-side // size) if pos_embed == 'rpe' else None  # per side
            for block in blocks:
                if cells is not None or (n_iter[stage] == 0 and size > 1):
                    block.attn = AblationAttention(channels[stage], num_heads, size, n_iter[stage], cells)
                if pos_embed != 'cpe':
                    block.pos_embed = _NoLayer()
                if ffn == 'plain':
                    block.ffn.dwconv = _NoLayer()
                elif ffn == 'conv_without_shortcut':
                    block.ffn.dwconv = PlainDepthwiseConv(block.ffn.dwconv)
            side = -(-side // 2)
        if deploy:
            self.switch_to_deploy()


class PatchStem(nn.Module):
    """One convolution over patches of 4×4 pixels, then BatchNorm; the image is zero-padded to whole patches.

    Args:
        in_channels: Channels of the image.
        embed_dims: Channels C of the first stage.
    """

    def __init__(self, in_channels: int, embed_dims: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, embed_dims, 4, stride=4)
        self.norm = nn.BatchNorm2d(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) -> (B, ⌈H/4⌉, ⌈W/4⌉, C)."""
        x = F.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4)).contiguous(memory_format=torch.channels_last)
        return self.norm(self.conv(x)).permute(0, 2, 3, 1)


class AbsolutePosition(nn.Module):
    """Add a learned vector to every token.

    Args:
        side: Tokens per side of the square map.
        embed_dims: Channels C.
    """

    def __init__(self, side: int, embed_dims: int) -> None:
        super().__init__()
        self.absolute_pos_embed = nn.Parameter(torch.empty(1, side, side, embed_dims))
        nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) -> (B, H, W, C)."""
        _check_size('ape', x, self.absolute_pos_embed.shape[1])
        return x + self.absolute_pos_embed


class AblationAttention(SuperTokenAttention):
    """Super token attention without sampling iterations, or with a relative position bias.

    Args:
        embed_dims: Channels C.
        num_heads: Attention heads; divides C.
        stoken_size: Side of a super token's cell, in tokens.
        n_iter: Sampling iterations; with 0 the super tokens are the means of their cells.
        num_cells: Cells per side of the square map, for a bias per head and distance; None is no bias.
    """

    def __init__(self, embed_dims: int, num_heads: int, stoken_size: int, n_iter: int, num_cells: int | None) -> None:
        super().__init__(embed_dims, num_heads, stoken_size, n_iter)
        self.num_cells = num_cells
        if num_cells is not None:
            self.relative_position_bias_table = nn.Parameter(
                torch.empty(num_heads, 2 * num_cells - 1, 2 * num_cells - 1)
            )
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def sample(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Compute super tokens (B, h, w, C) and association (B, h, w, s², 9) of a map."""
        if self.n_iter > 0:
            return super().sample(x)
        cells = partition(x, self.stoken_size)
        tokens = cells.mean(dim=3)
        return tokens, associate(cells, tokens)

    def attend(self, qkv: Tensor) -> Tensor:
        """Self-attention among super tokens: (B, h, w, 3C) -> (B, h, w, C)."""
        if self.num_cells is None:
            return super().attend(qkv)
        _check_size('rpe', qkv, self.num_cells)
        q, k, v = split_heads(qkv.flatten(1, 2), self.num_heads)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.bias().to(q.dtype))  # (B, heads, N, d)
        return self.proj(out.transpose(1, 2).reshape(*qkv.shape[:3], self.proj.in_features))

    def bias(self) -> Tensor:
        """Look up the bias of every query and key: (heads, N, N)."""
        n = self.num_cells
        places = torch.arange(n, device=self.qkv.weight.device)
        offsets = places[:, None] - places + n - 1  # (n, n), from 0 to 2n - 2
        rows, columns = offsets[:, None, :, None], offsets[None, :, None, :]
        return self.relative_position_bias_table[:, rows, columns].reshape(self.num_heads, n * n, n * n)


class PlainDepthwiseConv(nn.Module):
    """Depthwise convolution without shortcut.

    Its weights have other names than those of STViT, because neither model works with the weights of the other.

    Args:
        conv: The convolution with shortcut.
    """

    def __init__(self, conv: ResidualDepthwiseConv) -> None:
        super().__init__()
        self.conv = conv
        self.conv.residual = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) -> (B, H, W, C)."""
        return self.conv(x)

    def switch_to_deploy(self) -> None:
        """Do nothing: there is no shortcut to fold."""


@MODELS.register_module()
class STViTAblationNeck(BaseModule):
    """:class:`STViTNeck` without its convolution: BatchNorm → SiLU → global average pooling.

    Args:
        in_channels: Channels of the backbone's last stage.
        init_cfg: Initialization config of MMEngine.
    """

    def __init__(self, in_channels: int, init_cfg: dict | list[dict] | None = None) -> None:
        super().__init__(init_cfg=init_cfg)
        self.norm = nn.BatchNorm2d(positive_integer('in_channels', in_channels))

    def forward(self, inputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        """Pool a map (B, in_channels, H, W), or the last one of the backbone's tuple, to vectors (B, in_channels)."""
        x = inputs[-1] if isinstance(inputs, (tuple, list)) else inputs
        return (F.silu(self.norm(x)).mean(dim=(2, 3)),)


class _NoLayer(nn.Identity):
    """A layer that an ablation leaves out; it has nothing to fold."""

    def switch_to_deploy(self) -> None:
        pass


def _check_size(kind: str, x: Tensor, side: int) -> None:
    if x.shape[1:3] != (side, side):
        raise ValueError(
            f'The position embedding {kind!r} was built for {side}×{side} tokens, but got {x.shape[1]}×{x.shape[2]}. '
            f'Use images of one size, and give it to STViTAblation as img_size.'
        )
