"""The published algorithm without any optimization, on the weights of our model: the baseline of the benchmark.

As in the official implementation, maps are contiguous NCHW, linear layers are 1×1 convolutions, LayerNorm copies the
map into channels-last order and back, a convolution and its residual are two operators, and super token attention is
:mod:`mmstvit.ops.naive`. Maps are (B, C, H, W) below.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mmstvit.layers import STViTBlock, SuperTokenAttention
from mmstvit.ops import naive

from .stvit import STViT


class PublishedSTViT(nn.Module):
    """The forward pass of the published algorithm on the parameters and buffers of an :class:`STViT`.

    Both modules share their tensors: values, gradients and BatchNorm statistics are the same up to rounding, only time
    and memory differ. Frozen stages and ``norm_eval`` work as in STViT; ``with_cp`` has no effect.

    Args:
        model: The model in training form whose weights to use.
    """

    def __init__(self, model: STViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps; see :meth:`STViT.forward`."""
        model = self.model
        x = x.contiguous()
        drop_path = iter(model.draw_drop_path(x))
        for conv, norm in zip(model.patch_embed.convs, model.patch_embed.norms, strict=True):
            x = _batch_norm(norm, F.gelu(_conv(conv, x)))
        outs = []
        for i, blocks in enumerate(model.stages):
            if i > 0:
                downsample = model.downsamples[i - 1]
                x = _batch_norm(downsample.norm, _conv(downsample.conv, x))
            for block in blocks:
                x = _block(block, x, next(drop_path))
            if i in model.out_indices:
                outs.append(x)
        return tuple(outs)


def _block(block: STViTBlock, x: Tensor, drop_path: Tensor | None) -> Tensor:
    factors = (None, None) if drop_path is None or not block.training else drop_path[..., None, None, None]
    x = x + _conv(block.pos_embed, x)
    x = x + _scale(factors[0], _scale(block.gamma1, _attention(block.attn, _layer_norm(block.norm1, x))))
    return x + _scale(factors[1], _scale(block.gamma2, _ffn(block.ffn, _batch_norm(block.norm2, x))))


def _scale(factor: Tensor | None, x: Tensor) -> Tensor:
    if factor is None:
        return x
    return factor * x if factor.dim() == 4 else factor[:, None, None] * x  # stochastic depth, or a layer scale


def _attention(attn: SuperTokenAttention, x: Tensor) -> Tensor:
    if attn.stoken_size == 1:
        return _self_attention(attn, x)
    # The naive functions take (B, H, W, C) and work on (B, C, H, W): these permutes and theirs are views.
    tokens, affinity = naive.sample_super_tokens(x.permute(0, 2, 3, 1), attn.stoken_size, attn.n_iter)
    tokens = _self_attention(attn, tokens.permute(0, 3, 1, 2))
    x = naive.upsample_super_tokens(tokens.permute(0, 2, 3, 1), affinity, x.shape[2:])
    return x.permute(0, 3, 1, 2)


def _self_attention(attn: SuperTokenAttention, x: Tensor) -> Tensor:
    qkv = _linear(attn.qkv, x).flatten(2).transpose(1, 2)  # (B, N, 3C), a view
    out = naive.self_attention(qkv, attn.num_heads, attn.attn_drop_rate if attn.training else 0.0)
    return attn.proj_drop(_linear(attn.proj, out.transpose(1, 2).reshape(x.shape)))


def _ffn(ffn: nn.Module, x: Tensor) -> Tensor:
    x = ffn.drop(F.gelu(_linear(ffn.fc1, x)))
    x = x + _conv(ffn.dwconv, x)
    return ffn.drop(_linear(ffn.fc2, x))


def _layer_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    x = x.permute(0, 2, 3, 1).contiguous()
    return F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps).permute(0, 3, 1, 2).contiguous()


def _batch_norm(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return nn.BatchNorm2d.forward(norm, x)  # counts its batches itself


def _linear(linear: nn.Linear, x: Tensor) -> Tensor:
    return F.conv2d(x, linear.weight[..., None, None], linear.bias)


def _conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    # Weights in channels_last format would make the output so.
    return F.conv2d(x, conv.weight.contiguous(), conv.bias, conv.stride, conv.padding, groups=conv.groups)
