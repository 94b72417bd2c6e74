"""Workarounds that depend on private names or message texts of torch, MMEngine and mmcv, with the versions tried."""

import pickle

import torch


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
