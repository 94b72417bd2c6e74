"""CPU backend: the functions of :mod:`mmstvit.ops.super_token` with oneDNN, for fp32 and bf16."""

from ..super_token import add_branch, sample_super_tokens, upsample_super_tokens
from .attention import self_attention
from .dense import linear, residual_dwconv, residual_dwconv_norm
from .ffn import conv_ffn

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
