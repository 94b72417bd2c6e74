"""Stand-ins for the classes and functions that a checkpoint's pickle names besides tensors and plain containers.

``torch.load(weights_only=True)`` calls the names that it allows with whatever arguments the file gives. Checkpoints of
MMEngine name NumPy's functions and, for their log, ``getattr``; a harmful file could misuse the real ones. Here each
such name stands for a class or function of this module that only keeps plain data. :func:`replace_stand_ins` makes
arrays and logs of them after the file is read.
"""

import argparse
import contextlib
import pickle
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

# Booleans, integers, floating-point and complex numbers, and strings of a fixed length.
_PLAIN_DTYPE = re.compile(r'[biufcSU]\d+')
_MOST_ENTRIES = 10_000_000  # of all containers, each counted as often as others contain it


class _Dtype:
    """Stand-in for ``numpy.dtype``: numbers and strings only."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f'arrays of dtype {code!r} are not allowed')
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ('<', '>', '|', '='):
            raise pickle.UnpicklingError(f'{state[1]!r} is not a byte order')
        self.order = state[1]

    def decode(self, data: bytes) -> np.ndarray:
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError(f'the entries of an array are {type(data).__name__}, not bytes')
        return np.frombuffer(data, np.dtype(self.order + self.code)).copy()


class _Array:
    """Stand-in for ``numpy.ndarray``."""

    array = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.array = dtype.decode(data).reshape(shape, order='F' if fortran else 'C')


class _Log:
    """Stand-in for MMEngine's ``HistoryBuffer``; its methods, which the file names by ``getattr``, are ignored."""

    state: dict | None = None

    def __setstate__(self, state: dict) -> None:
        self.state = state

    def rebuild(self) -> HistoryBuffer:
        log, count, length = (self.state[key] for key in ('_log_history', '_count_history', 'max_length'))
        return HistoryBuffer(log.array, count.array, length)


def _getattr(*_: object) -> None:
    return None


def _bytes() -> bytes:
    """Stand-in for ``bytes``: pickle writes the ``b''`` of an empty log as a call without arguments."""
    return b''


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    (value,) = dtype.decode(data)
    return value


# Callables, and stand-ins with the name by which a pickle asks for them.
_ALLOWED = [
    argparse.Namespace,  # the options of the training run, in published files
    (_getattr, 'builtins.getattr'),
    (_bytes, 'builtins.bytes'),
    (_Log, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_Dtype, 'numpy.dtype'),
    (_Array, 'numpy.ndarray'),
    *(
        (function, f'{package}.multiarray.{name}')
        for package in ('numpy._core', 'numpy.core')  # NumPy 2 and NumPy 1
        for name, function in (('_reconstruct', _reconstruct), ('scalar', _scalar))
    ),
]


@contextlib.contextmanager
def only_safe_globals(names: Sequence[Callable | tuple[Callable, str]] = _ALLOWED) -> Iterator[None]:
    """Let ``torch.load(weights_only=True)`` read these names, and none that other packages have allowed."""
    others = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        with torch.serialization.safe_globals(list(names)):
            yield
    finally:
        torch.serialization.add_safe_globals(others)


def replace_stand_ins(content: object, seen: set[int] | None = None) -> object:
    """Replace stand-ins by arrays and logs, and refuse tensors larger than their data; dicts and lists are changed.

    A tensor that is not contiguous is copied: its elements may share memory, and the kernels of fused optimizers write
    as many values as its shape has, whatever its strides.

    Args:
        content: What a checkpoint file holds.
        seen: Containers that are done; they may contain each other.
    """
    seen = set() if seen is None else seen
    if isinstance(content, _Array):
        return content.array
    if isinstance(content, _Log):
        return content.rebuild()
    if isinstance(content, Tensor):
        if content.layout == torch.strided and content.nbytes > content.untyped_storage().nbytes():
            raise pickle.UnpicklingError(f'a tensor of shape {tuple(content.shape)} is larger than its data')
        return content.clone() if content.layout == torch.strided and not content.is_contiguous() else content
    if type(content) is tuple:
        replaced = tuple(replace_stand_ins(entry, seen) for entry in content)
        # An unchanged tuple stays the same object: MMEngine compares metadata by their pickles.
        return content if all(a is b for a, b in zip(content, replaced, strict=True)) else replaced
    if id(content) in seen:
        return content
    seen.add(id(content))
    if isinstance(content, argparse.Namespace):
        replace_stand_ins(vars(content), seen)
    elif isinstance(content, dict):
        for key, value in content.items():
            content[key] = replace_stand_ins(value, seen)
    elif isinstance(content, list):
        content[:] = [replace_stand_ins(entry, seen) for entry in content]
    return content


def check_size(content: object, sizes: dict[int, int] | None = None) -> int:
    """Count the entries of containers as a walk meets them: what is contained twice counts twice.

    Forty lists that each contain the next one twice are a small file, but a walk over them does not end.

    Raises:
        UnpicklingError: There are more than any checkpoint has.
    """
    sizes = {} if sizes is None else sizes
    content = vars(content) if isinstance(content, argparse.Namespace) else content
    if not isinstance(content, (dict, list, tuple)):
        return 1
    if id(content) not in sizes:
        sizes[id(content)] = 1  # a container may contain itself
        entries = [*content, *content.values()] if isinstance(content, dict) else content
        sizes[id(content)] = 1 + sum(check_size(entry, sizes) for entry in entries)
        if sizes[id(content)] > _MOST_ENTRIES:
            raise pickle.UnpicklingError(f'its containers hold each other more than {_MOST_ENTRIES:,} times')
    return sizes[id(content)]
