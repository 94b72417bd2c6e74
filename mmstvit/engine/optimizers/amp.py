"""Mixed precision on a machine without a GPU, where MMEngine's ``AmpOptimWrapper`` does not run."""

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
    """``AmpOptimWrapper`` with autocast and gradient scaling of the CPU.

    The backbone alone computes in the lower precision: mmcv's CPU kernels behind a detector's heads (NMS) read float32
    and nothing else. All weights stay in float32. Where there is a GPU, MMEngine's own wrapper is the one to use.

    Args:
        optimizer: The optimizer.
        loss_scale: ``'dynamic'``, a fixed factor, or arguments of :class:`torch.amp.GradScaler`. Only float16 needs it:
            bfloat16 has the exponents of float32, so its losses are not scaled.
        dtype: ``'bfloat16'`` or ``'float16'``: what autocast computes in.
        accumulative_counts: Iterations whose gradients make one step.
        clip_grad: Arguments of gradient clipping, as for ``OptimWrapper``.

    Raises:
        ValueError: Another ``dtype``, or a ``loss_scale`` that is none of the above.
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
        # Not the parent's: it asserts a GPU and makes a scaler for it.
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
        """Autocast in ``model.backbone``, and no gradient synchronisation while gradients accumulate."""
        backbone = getattr(model, 'module', model).backbone
        # Not MMEngine's autocast: on CPU it knows bfloat16 alone.
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
