"""What a checkpoint's pickle may name besides tensors and plain containers, each as a stand-in that executes nothing.

``torch.load(weights_only=True)`` calls what it is allowed to call with whatever the file says. MMEngine's checkpoints
name NumPy's functions and, for the methods of their log, ``getattr``: allowed for real, a harmful file could go on from
there. Here such a name means a class or function of this module that keeps the plain data; :func:`settle` makes arrays
and logs of it when the file is read.
"""

import argparse
import contextlib
import pickle
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# Booleans, integers, floating-point and complex numbers, and strings of a stated length.
_PLAIN_DTYPE = re.compile(r'[biufcSU]\d+')


class _Dtype:
    """For ``numpy.dtype``: the numbers and strings among them."""

    def __init__(self, code: str, align: object = False, copy: object = True) -> None:
        if not isinstance(code, str) or not _PLAIN_DTYPE.fullmatch(code):
            raise pickle.UnpicklingError(f'arrays of dtype {code!r} are not allowed')
        self.code, self.order = code, '='

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ('<', '>', '|', '='):
            raise pickle.UnpicklingError(f'{state[1]!r} is no byte order')
        self.order = state[1]

    def decode(self, data: bytes) -> np.ndarray:
        if not isinstance(data, bytes):
            raise pickle.UnpicklingError(f'the entries of an array are {type(data).__name__}, not bytes')
        return np.frombuffer(data, np.dtype(self.order + self.code)).copy()


class _Array:
    """For ``numpy.ndarray``."""

    array = np.empty(0)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, data = state
        self.array = dtype.decode(data).reshape(shape, order='F' if fortran else 'C')


class _Log:
    """For MMEngine's ``HistoryBuffer``; its statistics, which the file names by ``getattr``, are those of the class."""

    state: dict | None = None

    def __setstate__(self, state: dict) -> None:
        self.state = state

    def rebuild(self) -> HistoryBuffer:
        log, count, length = (self.state[key] for key in ('_log_history', '_count_history', 'max_length'))
        return HistoryBuffer(log.array, count.array, length)


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    (value,) = dtype.decode(data)
    return value


def _nothing(*_: object) -> None:
    return None


def _no_bytes() -> bytes:
    """How pickle writes ``b''``, which the array of an empty log has."""
    return b''


def _named(name: str, target: type | Callable) -> type | Callable:
    """``target`` under the name by which a file asks for it."""
    if isinstance(target, type):
        alias = type(target.__name__, (target,), {})
    else:

        def alias(*args: object) -> object:
            return target(*args)

    alias.__module__, _, alias.__name__ = name.rpartition('.')
    alias.__qualname__ = alias.__name__
    return alias


_ALLOWED = [
    argparse.Namespace,  # the options of the training, in published files
    _named('builtins.getattr', _nothing),
    _named('builtins.bytes', _no_bytes),
    _named('mmengine.logging.history_buffer.HistoryBuffer', _Log),
    _named('numpy.dtype', _Dtype),
    _named('numpy.ndarray', _Array),
    *(
        _named(f'{package}.multiarray.{name}', function)
        for package in ('numpy._core', 'numpy.core')  # of NumPy 2 and of NumPy 1; the file may come from either
        for name, function in (('_reconstruct', _reconstruct), ('scalar', _scalar))
    ),
    _Array,  # what the stand-in of _reconstruct returns
]


@contextlib.contextmanager
def only_allowed(names: Sequence[type | Callable] = ()) -> Iterator[None]:
    """While this lasts, ``torch.load(weights_only=True)`` reads these names, and no others that were allowed."""
    # torch.serialization.safe_globals does nearly the same, from torch 2.5 on.
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(list(names))
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def stand_ins() -> contextlib.AbstractContextManager:
    """While this lasts, ``torch.load(weights_only=True)`` reads the names above, and no others that were allowed."""
    return only_allowed(_ALLOWED)


def settle(content: object) -> object:
    """Put arrays and logs where their stand-ins are; dicts and lists stay the same objects."""
    return _settle(content, set())


def _settle(content: object, seen: set[int]) -> object:
    if isinstance(content, _Array):
        return content.array
    if isinstance(content, _Log):
        return content.rebuild()
    if isinstance(content, tuple) and type(content) is tuple:
        settled = tuple(_settle(entry, seen) for entry in content)
        # One that is in several places stays one, if nothing in it changes: MMEngine compares by what pickle writes.
        return content if all(a is b for a, b in zip(content, settled, strict=True)) else settled
    if id(content) in seen:
        return content
    if isinstance(content, argparse.Namespace):
        seen.add(id(content))
        _settle(vars(content), seen)
    elif isinstance(content, dict):
        seen.add(id(content))
        for key, value in content.items():
            content[key] = _settle(value, seen)
    elif isinstance(content, list):
        seen.add(id(content))
        content[:] = [_settle(entry, seen) for entry in content]
    return content
