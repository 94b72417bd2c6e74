"""STViT, "Vision Transformer with Super Token Sampling" (CVPR 2023), for the OpenMMLab family.

Importing the package registers its models; a config names them ``mmstvit.STViT`` in any OpenMMLab scope. MMPreTrain,
imported before or after, then has our classifiers in ``mmpretrain.list_models()``.
"""

from .dependencies import check_core
from .version import __version__

check_core()

from . import checkpoint, hub  # noqa: E402
from .models import STViT, STViTNeck  # noqa: E402

__all__ = ['STViT', 'STViTNeck', '__version__', 'checkpoint', 'hub']
