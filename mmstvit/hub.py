"""Where other packages look for our models: the name lists of MMPreTrain and ``mmengine.hub``.

``mmpretrain.get_model(name)`` and ``mmpretrain.list_models()`` know what was registered with ``mmpretrain.ModelHub``,
which exists once MMPreTrain is imported. mmstvit does not import it: the registration waits for that import, or takes
place at once where it is already done.
"""

from collections.abc import Callable
from pathlib import Path

from mmengine.registry import DefaultScope
from torch import nn

from .dependencies import require_library
from .registry import MODELS

_MIM = Path(__file__).parent / '.mim'

# Types at the root of a config's model -> the library they belong to.
_ROOT_TYPES = {
    'MaskRCNN': 'mmdet',
    'CascadeRCNN': 'mmdet',
    'EncoderDecoder': 'mmseg',
    'ImageClassifier': 'mmpretrain',
}


def register_models() -> None:
    """Add our ImageNet classifiers to ``mmpretrain.list_models()`` and ``mmpretrain.get_model()``.

    A second call does nothing.

    Raises:
        ImportError: MMPreTrain is missing.
    """
    from mmpretrain.apis.model import ModelHub

    metafile = _MIM / 'configs' / 'imagenet' / 'metafile.yml'
    if not any(name.startswith('stvit-') for name in ModelHub._models_dict):
        ModelHub.register_model_index(metafile, config_prefix=_MIM)


def register_all_modules() -> None:
    """Let ``mmengine.hub.get_model('mmstvit::…')`` build our configs.

    It calls this function and then builds the config's model in the scope of the package, here mmstvit, which has
    neither detectors nor segmentors nor classifiers. Under their names it gets functions that build them in their own.
    """
    for name, scope in _ROOT_TYPES.items():
        if name not in MODELS.module_dict:
            MODELS.register_module(name=name, module=_builder(f'{scope}.{name}', scope))


def _builder(name: str, scope: str) -> Callable[..., nn.Module]:
    def build(**model: object) -> nn.Module:
        require_library(scope)
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(dict(model, type=name))

    return build
