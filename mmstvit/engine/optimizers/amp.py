"""Mixed precision without a GPU, which ``AmpOptimWrapper`` of MMEngine 0.10.12 refuses."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.utils import apply_to
from torch import nn
from torch.optim import Optimizer

from mmstvit.registry import OPTIM_WRAPPERS

_DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(AmpOptimWrapper):
    """``AmpOptimWrapper`` with autocast and loss scaling on CPU.

    Only ``model.backbone`` computes in the lower precision, because mmcv's CPU kernels behind a detector's heads (NMS)
    need float32. All weights stay in float32. On a GPU use MMEngine's own wrapper.

    Args:
        optimizer: The optimizer.
        loss_scale: ``'dynamic'``, a fixed factor, or arguments of :class:`torch.amp.GradScaler`. It applies to float16;
            bfloat16 has the exponents of float32 and needs no scaling.
        dtype: ``'bfloat16'`` or ``'float16'``.
        accumulative_counts: Iterations whose gradients make one step.
        clip_grad: Arguments of gradient clipping, as for ``OptimWrapper``.

    Raises:
        ValueError: ``dtype`` or ``loss_scale`` has another value.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        loss_scale: str | float | dict = 'dynamic',
        dtype: str = 'bfloat16',
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f'dtype of mixed precision on CPU must be one of {sorted(_DTYPES)}, but got {dtype!r}.')
        # Not AmpOptimWrapper.__init__, which asserts a GPU and makes a scaler for it.
        OptimWrapper.__init__(self, optimizer, accumulative_counts, clip_grad)
        self.cast_dtype = _DTYPES[dtype]
        self._scale_update_param = None
        if loss_scale == 'dynamic':
            options = {}
        elif isinstance(loss_scale, dict):
            options = dict(loss_scale)
        elif isinstance(loss_scale, (int, float)) and loss_scale > 0:
            options = {'init_scale': float(loss_scale)}
            self._scale_update_param = float(loss_scale)
        else:
            raise ValueError(
                f"loss_scale must be 'dynamic', a factor above 0 or arguments of GradScaler, but got {loss_scale!r}."
            )
        self.loss_scaler = torch.amp.GradScaler('cpu', enabled=self.cast_dtype == torch.float16, **options)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast ``model.backbone``, without synchronizing gradients while they accumulate."""
        backbone = getattr(model, 'module', model).backbone
        # MMEngine 0.10.12 has only bfloat16 on CPU.
        autocast = torch.autocast('cpu', self.cast_dtype)

        def enter(module: nn.Module, args: tuple) -> None:
            autocast.__enter__()

        def leave(module: nn.Module, args: tuple, outputs: object) -> object:
            autocast.__exit__(None, None, None)
            return apply_to(outputs, torch.is_tensor, torch.Tensor.float)

        hooks = [
            backbone.register_forward_pre_hook(enter),
            backbone.register_forward_hook(leave, always_call=True),
        ]
        try:
            with OptimWrapper.optim_context(self, model):
                yield
        finally:
            for hook in hooks:
                hook.remove()
