"""STViT, "Vision Transformer with Super Token Sampling" (CVPR 2023), for the OpenMMLab family.

Importing the package registers its models; a config names them ``mmstvit.STViT`` in any OpenMMLab scope. MMPreTrain,
imported before or after, then has our classifiers in ``mmpretrain.list_models()``.

``python -m mmstvit.doctor`` says what is wrong where the import fails.
"""

from .doctor import is_starting
from .version import __version__

# The doctor looks for what keeps the rest from being imported, and imports the rest itself.
if not is_starting():
    from .dependencies import check_core

    check_core()

    from . import checkpoint, hub
    from .models import STViT, STViTNeck

__all__ = ['STViT', 'STViTNeck', '__version__', 'checkpoint', 'hub']
