"""Checkpoints of strangers: read, never executed."""

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from .checks import UserError


def load_safely(path: Path, allowed: Iterable[type | Callable] = ()) -> object:
    """The content of a file that ``torch.save`` wrote, on the CPU; nothing of it is executed.

    Args:
        path: The file.
        allowed: Classes and functions that it may name besides tensors and plain containers. They are called with
            whatever the file says.

    Raises:
        UserError: The file is missing or damaged, or it names something else.
    """
    if not path.is_file():
        raise UserError(f'the checkpoint {path} does not exist.')
    # torch.serialization.safe_globals does the same, from torch 2.5 on.
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(list(allowed))
    try:
        return torch.load(path, map_location='cpu', weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f'{path} is not a checkpoint that can be loaded safely: {reason}') from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
