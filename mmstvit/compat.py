"""Workarounds that depend on private names or message texts of torch, MMEngine and mmcv, with the versions tried."""

import contextlib
import gc
import importlib
import inspect
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from mmengine.optim import BaseOptimWrapper
from mmengine.registry import DefaultScope
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import LocalVisBackend
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter


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


# As torch.compiler.disable, but without the import of torch._dynamo, which takes longer than that of all of mmstvit. In
# torch 2.6 to 2.14.
run_eagerly = getattr(torch, '_disable_dynamo', None) or torch.compiler.disable


# True under torch.export and under the exporter of ONNX that uses it. torch 2.6 cannot tell it from torch.compile.
is_exporting = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)


def has_module_hooks() -> bool:
    """Return True while hooks of all modules are registered, such as those of PyTorch's FLOP counter.

    The function of torch is private; tried with 2.14.
    """
    return bool(torch.nn.modules.module._has_any_global_hook())


def constant_for_compiler(function: Callable) -> Callable:
    """Mark a function whose result torch.compile takes for a constant, as torch.compiler.assume_constant_result does.

    That function imports torch._dynamo; the mark is the same in torch 2.6 to 2.14.
    """
    function._dynamo_marked_constant = True
    return function


def worker_message(error: BaseException) -> str:
    """Return an exception's message without the traceback that torch adds if a DataLoader worker raised it.

    torch 2.11 rebuilds a worker's exception as ``type(text)``, where ``text`` begins with ``Caught`` and ends with the
    formatted traceback. The message of any other exception is returned as it is.
    """
    text = str(error)
    kind = type(error)
    if not text.startswith(f'Caught {kind.__name__} in DataLoader worker process'):
        return text
    name = kind.__qualname__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__qualname__}'
    text = getattr(error, 'problem', text)  # of a UserError, whose str() indents lines
    return text.rpartition(f'\n{name}: ')[2].strip()


def no_sample_found(error: Exception) -> bool:
    """Return True if MMEngine's ``BaseDataset`` gave up: ``max_refetch`` samples in a row were None.

    MMEngine 0.10.12 raises a plain ``Exception`` for it, which only its text tells from others.
    """
    return type(error) is Exception and str(error).startswith('Cannot find valid image')


def unpickling_reason(error: Exception) -> str:
    """Return why ``torch.load`` failed, without its advice to load the file unsafely.

    torch 2.6 to 2.11 raises the advice while it handles the unpickler's own error, whose first sentence is the reason.
    """
    if isinstance(error, pickle.UnpicklingError) and error.__context__ is not None:
        error = error.__context__
    return str(error).strip().partition('\n')[0].partition('. ')[0].rstrip('.')


def leave_default_scope(name: str, scope: str | None = None) -> bool:
    """Make another default scope of MMEngine the current one until the temporary scope ``name`` ends.

    ``DefaultScope.overwrite_default_scope`` puts the scopes back that it found (MMEngine 0.10.0 to 0.10.12), so that
    this lasts as long as the temporary scope. No public method lists the scopes below the current one.

    Args:
        name: The temporary scope.
        scope: The scope to enter; by default the newest one below that is not ``name``.

    Returns:
        False if there is none to enter.
    """
    instances = DefaultScope._instance_dict
    below = (instance.scope_name for instance in reversed(instances.values()) if instance.scope_name != name)
    scope = scope or next(below, None)
    if scope is None:
        return False
    DefaultScope.get_instance(f'{name}-{len(instances)}-{scope}', scope_name=scope)
    return True


def step_is_skipped(optimizer: Optimizer) -> bool:
    """Return True, inside of its ``step()``, if a loss scaler has told a fused optimizer to change nothing.

    torch 2.4 to 2.11 sets ``found_inf`` of the optimizer for it; other optimizers are not called at all.
    """
    return bool(getattr(optimizer, 'found_inf', False))


def accumulative_counts(optim_wrapper: BaseOptimWrapper) -> int:
    """Return the number of iterations whose gradients make one step; MMEngine 0.10.12 keeps it in a private name."""
    return getattr(optim_wrapper, '_accumulative_counts', 1)


def local_buffers() -> dict[str, bool]:
    """Return the option of DistributedDataParallel that leaves BatchNorm statistics to each process.

    torch 2.14 renamed it, and warns of the old name.
    """
    names = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    return {'forward_sync_buffers' if 'forward_sync_buffers' in names else 'broadcast_buffers': False}


def mask_logits(roi_head: nn.Module, features: tuple[Tensor, ...], rois: Tensor) -> list[Tensor]:
    """Return what every mask head of a RoI head predicts for ``rois``: (n, C or 1, h, w), one head per cascade stage.

    MMDetection 3.5.1 has only the private ``_mask_forward`` for it.
    """
    if isinstance(roi_head.mask_head, nn.ModuleList):
        stages = range(len(roi_head.mask_head))
        return [roi_head._mask_forward(stage, features, rois)['mask_preds'] for stage in stages]
    return [roi_head._mask_forward(features, rois)['mask_preds']]


@contextlib.contextmanager
def registered_types_only() -> Iterator[None]:
    """Keep MMEngine's registries from importing a type that is not registered.

    ``Registry.get`` of MMEngine 0.8 to 0.10.12 looks an unknown name up with ``get_object_from_string``, which imports
    modules. It has no switch.
    """
    module = importlib.import_module('mmengine.registry.registry')
    lookup, module.get_object_from_string = module.get_object_from_string, lambda name: None
    try:
        yield
    finally:
        module.get_object_from_string = lookup


def create_image_folder(visualizer: Visualizer, name: str) -> None:
    """Create the folder in which ``LocalVisBackend`` writes an image whose name has slashes (TensorBoard's groups).

    MMEngine 0.10.0 to 0.10.12 creates the folder of all images only, and OpenCV then writes nothing, without an error.
    """
    for backend in visualizer._vis_backends.values():
        if isinstance(backend, LocalVisBackend):
            Path(backend.experiment._img_save_dir, name).parent.mkdir(parents=True, exist_ok=True)


def stop_workers() -> None:
    """Stop the workers of all data loaders, for each of which the garbage collector waits ten seconds.

    It may close the queue of a worker before it sends the end. torch 2.14 has no public way to stop them
    (https://github.com/pytorch/pytorch/issues/64766).
    """
    if multiprocessing.active_children():
        for iterator in [part for part in gc.get_objects() if type(part) is _MultiProcessingDataLoaderIter]:
            iterator._shutdown_workers()
