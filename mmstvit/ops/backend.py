"""Choose the functions that compute super token attention and its linear and convolutional layers.

========== ==========================================================================================================
``auto``   ``cpu``, ``triton`` or ``torch``, by the device and dtype of the data; the default
``torch``  :mod:`mmstvit.ops.super_token`: every device, every dtype
``cpu``    :mod:`mmstvit.ops.cpu`: oneDNN on the CPU, fp32 and bf16
``triton`` :mod:`mmstvit.ops.triton`: CUDA GPUs of compute capability 8.0 or more, fp32, fp16 and bf16
``fused``  :mod:`mmstvit.ops.triton.fused`: as ``triton``, with more kernels, which have never been timed on a GPU
``naive``  :mod:`mmstvit.ops.naive`: the reference of the tests
========== ==========================================================================================================

The environment variable ``MMSTVIT_BACKEND`` sets the initial backend. Triton is imported when it is first needed.

While ``torch.jit.trace``, ``torch.onnx.export`` or ``torch.export`` records a program, ``auto`` is ``torch`` on every
device: the program must run without this package. ``torch.compile`` keeps the Triton operators.
"""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from mmstvit.compat import ONEDNN_BF16, constant_for_compiler, is_exporting

from . import cpu, naive, super_token
from .cpu.attention import choose_attention
from .triton import TRITON_DTYPES

BACKENDS = ('auto', 'torch', 'cpu', 'triton', 'fused', 'naive')
# What 'auto' chooses on CUDA: the fastest that was timed on hardware. 'fused' has fewer launches and moves less memory.
AUTO_ON_CUDA = 'triton'
VARIABLE = 'MMSTVIT_BACKEND'
# Below it, Triton itself is unsupported, and the GPU has neither bf16 products nor asynchronous copies.
MIN_CAPABILITY = (8, 0)

_MODULES = {'torch': super_token, 'cpu': cpu, 'naive': naive}

_backend: str | None = None  # None until it is set or read


def _check_name(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f'{source} must be one of {", ".join(map(repr, BACKENDS))}, but got {name!r}.')
    return name


def get_backend() -> str:
    """Return the name of the backend in use, one of :data:`BACKENDS`.

    Raises:
        ValueError: The environment variable ``MMSTVIT_BACKEND`` names an unknown backend.
    """
    global _backend
    if _backend is None:
        _backend = _check_name(os.environ.get(VARIABLE) or 'auto', f'The environment variable {VARIABLE}')
    return _backend


def set_backend(name: str) -> None:
    """Choose the backend of all models in this process.

    Raises:
        ValueError: The name is unknown.
    """
    global _backend
    _backend = _check_name(name, 'The backend')


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Choose the backend for a ``with`` block. A backward pass uses the backend of its forward pass."""
    before = get_backend()
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def _cpu_obstacle(kind: str, dtype: torch.dtype) -> str:
    """Return why the backend ``cpu`` cannot run there, or an empty string."""
    if kind != 'cpu':
        return f"it needs data on the CPU, and the data are on '{kind}'"
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return 'oneDNN is switched off, or this PyTorch was built without it'
    if dtype not in (torch.float32, torch.bfloat16):
        return f'it computes in torch.float32 and torch.bfloat16, not in {dtype}'
    if dtype == torch.bfloat16 and not ONEDNN_BF16:
        return 'this processor has no bf16 instructions'
    return ''


@functools.cache
def _find_triton_obstacle(kind: str, index: int | None, dtype: torch.dtype) -> str:
    if importlib.util.find_spec('triton') is None:
        return 'the package triton is not installed (pip install triton)'
    if dtype not in TRITON_DTYPES:
        return f'it computes in {", ".join(map(str, TRITON_DTYPES))}, not in {dtype}'
    if os.environ.get('TRITON_INTERPRET') == '1' and _triton().INTERPRETED:
        return ''
    if kind != 'cuda':
        return f"it needs a CUDA GPU, and the data are on '{kind}'"
    if torch.version.hip is not None:
        return 'its kernels have never been compiled for AMD GPUs'
    capability = torch.cuda.get_device_capability(index)
    if capability < MIN_CAPABILITY:
        have, need = ('.'.join(map(str, c)) for c in (capability, MIN_CAPABILITY))
        return f'it needs a GPU of compute capability {need} or more, and this one has {have}'
    return ''


@constant_for_compiler
def _triton_obstacle(kind: str, index: int | None, dtype: torch.dtype) -> str:
    """Return why Triton cannot run there, or an empty string; torch.compile takes the answer for a constant."""
    return _find_triton_obstacle(kind, index, dtype)


def _resolve(kind: str, index: int | None, dtype: torch.dtype) -> tuple[str, str]:
    """Return the backend, never ``auto``, and the reason against it or against a faster one, or an empty string."""
    name = get_backend()
    if name == 'cpu':
        return name, _cpu_obstacle(kind, dtype)
    if name in ('triton', 'fused'):
        return name, _triton_obstacle(kind, index, dtype)
    if name != 'auto':
        return name, ''
    if kind == 'cpu':
        reason = 'a compiler or tracer is recording' if super_token.is_traced() else _cpu_obstacle(kind, dtype)
        return ('torch', f'not cpu: {reason}') if reason else ('cpu', '')
    if kind == 'cuda':
        traced = torch.jit.is_tracing() or is_exporting()
        reason = 'a tracer is recording' if traced else _triton_obstacle(kind, index, dtype)
        return ('torch', f'not {AUTO_ON_CUDA}: {reason}') if reason else (AUTO_ON_CUDA, '')
    return 'torch', ''


def _triton(name: str = 'triton') -> ModuleType:
    # Statements: torch.compile cannot trace importlib.import_module, and would break the graph at every operator.
    if name == 'fused':
        from .triton import fused

        return fused
    from .triton import operators

    return operators


def select(x: Tensor) -> ModuleType:
    """Return the module whose functions compute with ``x``.

    Args:
        x: The map; its device and dtype decide.

    Returns:
        :mod:`~mmstvit.ops.super_token`, :mod:`~mmstvit.ops.cpu`, :mod:`~mmstvit.ops.triton.operators`,
        :mod:`~mmstvit.ops.triton.fused` or :mod:`~mmstvit.ops.naive`. All have the same functions.

    Raises:
        RuntimeError: The backend ``cpu``, ``triton`` or ``fused`` was set by name and cannot run there.
    """
    name, reason = _resolve(x.device.type, x.device.index, x.dtype)
    if reason and name in ('cpu', 'triton', 'fused'):
        raise RuntimeError(
            f"The backend {name!r} is set, but {reason}. Use 'auto' or 'torch': set_backend('auto'), or the "
            f'environment variable {VARIABLE}.'
        )
    return _triton(name) if name in ('triton', 'fused') else _MODULES[name]


def describe(device: torch.device | str, dtype: torch.dtype = torch.float32) -> str:
    """Return one line that says which backend computes with data of a device and dtype, and why.

    For the backend ``cpu`` it also says how attention among many tokens is computed
    (:func:`mmstvit.ops.cpu.attention.choose_attention`).

    >>> describe('cpu')
    "cpu (chosen by 'auto'; attention at inference: sdpa)"
    """
    device = torch.device(device)
    name, reason = _resolve(device.type, device.index, dtype)
    chosen = get_backend() == 'auto'
    if reason and not chosen:
        reason = f'cannot run: {reason}'
    elif name == 'cpu':
        with torch.no_grad():
            reason = f'attention at inference: {choose_attention(dtype)}'
    source = "chosen by 'auto'" if chosen else 'set by name'
    return f'{name} ({source}; {reason})' if reason else f'{name} ({source})'
