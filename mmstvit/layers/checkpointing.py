"""Activation checkpointing that leaves BatchNorm's statistics alone."""

import contextlib

import torch.utils.checkpoint as cp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmstvit.compat import run_eagerly
from mmstvit.ops import get_backend, use_backend

from .casting import current_casts, use_casts


@run_eagerly  # torch.compile takes no context_fn
def checkpoint(block: nn.Module, *inputs: Tensor | None) -> Tensor:
    """Run a block, and recompute it in the backward pass to save memory.

    Values, gradients and BatchNorm statistics are those of ``block(*inputs)``. A compiled model runs it eagerly.
    """
    contexts = contextlib.nullcontext(), _Recomputation(block)
    return cp.checkpoint(block, *inputs, use_reentrant=False, context_fn=lambda: contexts)


class _Recomputation:
    """Use backend and casts of the forward pass, and keep BatchNorm from updating its statistics a second time.

    The recomputation has to save the same tensors as the forward pass. So the kernel still gets the statistics, with
    momentum 0 and a copy of the batch counter. The context may be entered again: a graph can run backward twice.

    Args:
        module: The block.
    """

    def __init__(self, module: nn.Module) -> None:
        self.backend, self.casts = get_backend(), current_casts()
        self.norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
        self.saved: list[tuple] = []

    def __enter__(self) -> None:
        self.reuse = contextlib.ExitStack()
        self.reuse.enter_context(use_backend(self.backend))
        self.reuse.enter_context(use_casts(self.casts))
        self.saved = [(norm.momentum, norm.num_batches_tracked) for norm in self.norms]
        for norm in self.norms:
            norm.momentum, norm.num_batches_tracked = 0.0, norm.num_batches_tracked.clone()

    def __exit__(self, *_: object) -> None:
        self.reuse.close()
        for norm, (momentum, count) in zip(self.norms, self.saved, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
