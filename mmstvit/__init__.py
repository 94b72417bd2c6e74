"""STViT, "Vision Transformer with Super Token Sampling" (CVPR 2023), for the OpenMMLab family.

Importing the package registers its classes and changes nothing else in the process. A config names them
``mmstvit.STViT`` in any OpenMMLab scope. :func:`register_models` adds the models to the name lists of MMPreTrain.
"""

from .version import __version__

try:
    from .dependencies import check_core

    check_core()

    from . import checkpoint
    from .hub import register_models
    from .models import STViT, STViTNeck
except ImportError as error:
    # Raised at the first use of a name, not here: `python -m mmstvit.doctor` has to start where a dependency is broken.
    _cause = error

    def __getattr__(name: str) -> object:
        if name.startswith('__'):
            raise AttributeError(name)
        raise ImportError(str(_cause)) from _cause

else:

    def __getattr__(name: str) -> object:
        if name == 'SuperTokenVisHook':  # not at the import of mmstvit: it imports Matplotlib
            from .visualization import SuperTokenVisHook

            return SuperTokenVisHook
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


__all__ = ['STViT', 'STViTNeck', 'SuperTokenVisHook', '__version__', 'checkpoint', 'register_models']
