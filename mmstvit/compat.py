"""Workarounds that depend on private names or message texts of torch, MMEngine and mmcv, with the versions tried."""

import torch


def _onednn_operator(name: str) -> torch._ops.OpOverloadPacket | None:
    """Look up a private oneDNN operator; None if this torch does not have it (all of 2.4 to 2.14 do)."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, name, None)


_bf16_supported = _onednn_operator('_is_mkldnn_bf16_supported')
# True if this processor has oneDNN's bf16 instructions (AVX-512 or newer).
ONEDNN_BF16: bool = _bf16_supported is not None and bool(_bf16_supported())
# The matrix product to which torch.compile lowers linear layers, or None.
ONEDNN_LINEAR = _onednn_operator('_linear_pointwise')
