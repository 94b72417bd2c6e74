"""Norms with fewer launches on a GPU than PyTorch's; their results and weights are the same."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmstvit.ops.super_token import layer_norm

from .casting import CastsWeights


class LayerNorm(CastsWeights, nn.LayerNorm):
    """:class:`torch.nn.LayerNorm` that keeps the dtype of the map under autocast.

    CUDA's autocast casts map and result to fp32: all that follows would read twice the bytes. Statistics are in fp32
    either way.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (…, C) -> (…, C)."""
        return layer_norm(x, *self.affine(x), self.eps)

    def affine(self, x: Tensor) -> Sequence[Tensor]:
        """Return γ and β, the copies in the dtype of autocast if ``x`` is in half precision."""
        return (self.weight, self.bias) if x.dtype == self.weight.dtype else self.cast()


class BatchNorm2d(nn.BatchNorm2d):
    """:class:`torch.nn.BatchNorm2d` whose batch counter :func:`count_batches` increments."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C, H, W)."""
        if self.momentum is None:  # the mean of all batches, for which the counter must be right before
            return super().forward(x)
        statistics = self.running_mean, self.running_var
        return F.batch_norm(x, *statistics, self.weight, self.bias, self.training, self.momentum, self.eps)


def count_batches(module: nn.Module) -> None:
    """Increment the counters of all :class:`BatchNorm2d` in training mode, with one operator."""
    norms = (m for m in module.modules() if isinstance(m, BatchNorm2d) and m.training and m.momentum is not None)
    if counters := [norm.num_batches_tracked for norm in norms]:
        torch._foreach_add_(counters, 1)
