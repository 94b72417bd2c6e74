"""STViT, "Vision Transformer with Super Token Sampling" (CVPR 2023), for the OpenMMLab family.

Importing the package lets MMEngine find its classes and changes nothing else in the process. A config names them
``mmstvit.STViT`` in any OpenMMLab scope. :func:`register_models` adds the models to the name lists of MMPreTrain.
"""

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

from .dependencies import check_core
from .version import __version__

if TYPE_CHECKING:
    from . import checkpoint
    from .hub import register_models
    from .models import STViT, STViTNeck
    from .visualization import SuperTokenVisHook

__all__ = ['STViT', 'STViTNeck', 'SuperTokenVisHook', '__version__', 'checkpoint', 'register_models']

# Public name -> the module that has it.
_MODULES = {'STViT': 'models', 'STViTNeck': 'models', 'SuperTokenVisHook': 'visualization', 'register_models': 'hub'}


def __getattr__(name: str) -> object:
    """Import a public name or a module of the package at its first use, because that imports torch, for seconds."""
    module = f'{__name__}.{_MODULES.get(name, name)}'
    if importlib.util.find_spec(module) is None:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    if name in _MODULES:
        check_core()
        return getattr(importlib.import_module(module), name)
    return importlib.import_module(module)


def __dir__() -> list[str]:
    """Return the names that exist, with those that are not imported yet."""
    return sorted({*globals(), *__all__})


# Configs can then inherit from ours: _base_ = 'mmstvit::…'. A program that imports MMEngine later gets there with the
# first name of mmstvit that it uses.
if 'mmengine' in sys.modules:
    importlib.import_module('.registry', __name__)
