"""Stochastic depth."""

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_drop_path(rate: float, depth: int, x: Tensor) -> Sequence[Tensor | None]:
    """Draw the factors of both branches of all blocks: 0, or the inverse of the probability that the branch stays.

    The probability to drop a branch rises linearly from 0 at the first block. Factors are in fp32 whatever the dtype of
    the map: in bf16 a rate of 0.0053 would be 0.0039.

    Args:
        rate: Probability at the last block, in [0, 1); 0 draws nothing.
        depth: Number of blocks.
        x: Images; their number and device count.

    Returns:
        Factors (2, B) per block; None without stochastic depth.
    """
    if rate == 0:
        return [None] * depth
    keep = torch.linspace(1, 1 - rate, depth, device=x.device)[:, None, None].expand(-1, 2, len(x))
    return (torch.bernoulli(keep) / keep).unbind()
