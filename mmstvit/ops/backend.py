"""Which functions stand behind super token attention.

========== ==========================================================================================================
``auto``   ``triton`` where it can run, else ``torch``; the default
``torch``  :mod:`mmstvit.ops.super_token`: every device, every dtype
``triton`` :mod:`mmstvit.ops.triton`: CUDA GPUs of compute capability 8.0 or more, fp32, fp16 and bf16
``naive``  :mod:`mmstvit.ops.naive`: the oracle of the tests
========== ==========================================================================================================

The environment variable ``MMSTVIT_BACKEND`` sets the name at start-up. Triton is imported when it is first needed.
"""

import contextlib
import functools
import importlib.util
import os
from collections.abc import Iterator
from types import ModuleType

import torch
from torch import Tensor

from . import naive, opaque, super_token

BACKENDS = ('auto', 'torch', 'triton', 'naive')
VARIABLE = 'MMSTVIT_BACKEND'
# Below it Triton itself is unsupported, and bf16 products and asynchronous copies, which the kernels live on, are
# missing from the hardware.
MIN_CAPABILITY = (8, 0)
TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_ELSEWHERE = "it needs a CUDA GPU, and the data are on '{}'"


def _known(name: str, what: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f'{what} must be one of {", ".join(map(repr, BACKENDS))}, but got {name!r}.')
    return name


def _initial() -> str:
    return _known(os.environ.get(VARIABLE) or 'auto', f'The environment variable {VARIABLE}')


_backend = _initial()


def get_backend() -> str:
    """The name in force, one of :data:`BACKENDS`."""
    return _backend


def set_backend(name: str) -> None:
    """Choose the backend of all models of this process; raises ValueError for an unknown name."""
    global _backend
    _backend = _known(name, 'The backend')


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """:func:`set_backend` for a ``with`` block. A backward pass is that of its forward pass, wherever it runs."""
    before = get_backend()
    set_backend(name)
    try:
        yield
    finally:
        set_backend(before)


def _interpreted() -> bool:
    """Whether Triton runs its kernels in Python, which it decides when they are defined."""
    if os.environ.get('TRITON_INTERPRET') != '1':
        return False
    from . import triton

    return triton.INTERPRETED


@functools.cache
def _find_obstacle(kind: str, index: int | None, dtype: torch.dtype) -> str:
    if importlib.util.find_spec('triton') is None:
        return 'the package triton is not installed (pip install triton)'
    if dtype not in TRITON_DTYPES:
        return f'it computes in {", ".join(map(str, TRITON_DTYPES))}, not in {dtype}'
    if _interpreted():
        return ''
    if kind != 'cuda':
        return _ELSEWHERE.format(kind)
    if torch.version.hip is not None:
        return 'its kernels have never been compiled for AMD GPUs'
    capability = torch.cuda.get_device_capability(index)
    if capability < MIN_CAPABILITY:
        have, need = ('.'.join(map(str, c)) for c in (capability, MIN_CAPABILITY))
        return f'it needs a GPU of compute capability {need} or more, and this one has {have}'
    return ''


@torch.compiler.assume_constant_result
def _obstacle(kind: str, index: int | None, dtype: torch.dtype) -> str:
    """Why Triton cannot run there, empty if it can; for torch.compile a constant, not code to look into."""
    return _find_obstacle(kind, index, dtype)


def _resolve(kind: str, index: int | None, dtype: torch.dtype) -> tuple[str, str]:
    """The backend, never 'auto', and why it is not Triton, or empty."""
    if _backend == 'triton':
        return _backend, _obstacle(kind, index, dtype)
    if _backend == 'auto':
        # Never for a CPU's data, even where the interpreter could: it is a tool for tests.
        reason = _obstacle(kind, index, dtype) if kind == 'cuda' else _ELSEWHERE.format(kind)
        return ('torch' if reason else 'triton'), reason
    return _backend, ''


def select(x: Tensor) -> ModuleType:
    """The module whose functions compute super token attention of ``x``; torch.compile sees through.

    Args:
        x: The map; its device and dtype count.

    Returns:
        :mod:`~mmstvit.ops.super_token` (compiled: :mod:`~mmstvit.ops.opaque`), :mod:`~mmstvit.ops.triton` or
        :mod:`~mmstvit.ops.naive`.

    Raises:
        RuntimeError: ``triton`` was asked for by name, and cannot run there.
    """
    name, reason = _resolve(x.device.type, x.device.index, x.dtype)
    if name == 'torch':
        return opaque if opaque.is_wanted() else super_token
    if name == 'naive':
        return naive
    if reason:
        raise RuntimeError(
            f"The backend 'triton' was asked for, but {reason}. Choose 'auto' or 'torch': set_backend('auto'), or the "
            f'environment variable {VARIABLE}.'
        )
    from . import triton

    return triton


def describe(device: torch.device | str, dtype: torch.dtype = torch.float32) -> str:
    """Which backend serves data of that device and dtype, and why, in a line for reports.

    >>> describe('cpu')
    "torch (chosen by 'auto'; not triton: it needs a CUDA GPU, and the data are on 'cpu')"
    """
    device = torch.device(device)
    name, reason = _resolve(device.type, device.index, dtype)
    if _backend == 'auto':
        return f"{name} (chosen by 'auto'" + (f'; not triton: {reason})' if reason else ')')
    return f'{name} (asked for by name' + (f', but cannot run: {reason})' if reason else ')')
