"""Where other packages look for our models: the name lists of MMPreTrain and ``mmengine.hub``.

``mmpretrain.get_model(name)`` and ``mmpretrain.list_models()`` know what was registered with ``mmpretrain.ModelHub``,
which exists once MMPreTrain is imported. mmstvit does not import it: the registration waits for that import, or takes
place at once where it is already done.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from mmengine.registry import DefaultScope
from torch import nn

from .dependencies import require_library
from .registry import MODELS

_MIM = Path(__file__).parent / '.mim'
_MODEL_HUB = 'mmpretrain.apis.model'  # the module that defines ModelHub

# Types at the root of a config's model -> the library they belong to.
_ROOT_TYPES = {
    'MaskRCNN': 'mmdet',
    'CascadeRCNN': 'mmdet',
    'EncoderDecoder': 'mmseg',
    'ImageClassifier': 'mmpretrain',
}


def _register_classifiers(module: ModuleType) -> None:
    metafile = _MIM / 'configs' / 'imagenet' / 'metafile.yml'
    # Absent where mmstvit is used from a folder without being installed.
    if metafile.is_file():
        module.ModelHub.register_model_index(metafile, config_prefix=_MIM)


class _AfterImport(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Calls a function with a module right after the module's first import, then is gone.

    Args:
        name: Full name of the module.
        action: What to do with it.
    """

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._action = action

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            self._loader, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._action(module)


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


# Once, with the import of this module: MMPreTrain refuses a name that it has.
if _MODEL_HUB in sys.modules:
    _register_classifiers(sys.modules[_MODEL_HUB])
else:
    sys.meta_path.insert(0, _AfterImport(_MODEL_HUB, _register_classifiers))
