"""Registries of mmstvit, one below every registry of MMEngine.

A config of any OpenMMLab library names a class of mmstvit as ``mmstvit.<Name>``. MMEngine then imports this module.
"""

import difflib

import mmengine.registry
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.registry import DefaultScope, Registry

from .compat import leave_default_scope
from .dependencies import require_library

_SCOPE = 'mmstvit'
# Modules that fill a registry, imported at its first lookup. The other registries stay empty; they name this module,
# because MMEngine calls register_all_modules() for a registry that names none.
_LOCATIONS = {
    'MODELS': ['mmstvit.models', 'mmstvit.engine'],
    'DATASETS': ['mmstvit.datasets'],
    'DATA_SAMPLERS': ['mmstvit.datasets'],
    'HOOKS': ['mmstvit.engine.hooks', 'mmstvit.visualization'],
    'OPTIM_WRAPPERS': ['mmstvit.engine.optimizers'],
    'OPTIM_WRAPPER_CONSTRUCTORS': ['mmstvit.engine.optimizers'],
    'PARAM_SCHEDULERS': ['mmstvit.engine.schedulers'],
}
# Model types that mmengine.hub builds in the scope of mmstvit -> the library that has them.
_LIBRARY = {
    'MaskRCNN': 'mmdet',
    'CascadeRCNN': 'mmdet',
    'EncoderDecoder': 'mmseg',
    'ImageClassifier': 'mmpretrain',
}


class LibraryRegistry(Registry):
    """A registry whose scope is that of the library that runs the config.

    MMEngine builds what a config inherits through ``_base_ = 'mmstvit::…'``, and the models of ``mmengine.hub``, in a
    temporary default scope ``mmstvit``. A lookup there leaves that scope for the library's: other names are looked up
    in the library, and parts that the object builds in turn, such as the transforms of a pipeline, find theirs.
    """

    def get(self, key: str) -> object | None:
        """Look up a class or function.

        Args:
            key: Name in this registry, or, in the temporary scope, in the library's.

        Returns:
            The class or function; None for an unknown dotted name, as in MMEngine.

        Raises:
            KeyError: The name is unknown.
            ImportError: The library that has the model is missing or too old.
        """
        self.import_from_location()
        registry = self._enter_library(_LIBRARY.get(key))
        found = super().get(key) if registry is None or key in self.module_dict else registry.get(key)
        if found is None and '.' not in key:
            names = difflib.get_close_matches(key, self.module_dict, n=1, cutoff=0.5)
            if registry is None:
                names = names or sorted(self.module_dict)
            remedy = f' Did you mean {" or ".join(f"mmstvit.{name}" for name in names)}?' if names else ''
            raise KeyError(f'{key} is not in the {(registry or self).scope}::{self.name} registry.{remedy}')
        return found

    def _enter_library(self, library: str | None) -> Registry | None:
        """Leave the temporary scope; return the library's registry, or None in another scope or without a library."""
        scope = DefaultScope.get_current_instance()
        if scope is None or scope.scope_name != self.scope:
            return None
        if library is not None:
            require_library(library)
        if not leave_default_scope(self.scope, library):
            return None
        with self.switch_scope_and_registry(None) as registry:
            return registry


def _create(name: str, parent: Registry) -> Registry:
    return LibraryRegistry(parent.name, parent=parent, scope=_SCOPE, locations=_LOCATIONS.get(name, [__name__]))


REGISTRIES = {name: _create(name, root) for name, root in vars(mmengine.registry).items() if isinstance(root, Registry)}
MODELS = REGISTRIES['MODELS']
DATASETS = REGISTRIES['DATASETS']
DATA_SAMPLERS = REGISTRIES['DATA_SAMPLERS']
HOOKS = REGISTRIES['HOOKS']
OPTIM_WRAPPERS = REGISTRIES['OPTIM_WRAPPERS']
OPTIM_WRAPPER_CONSTRUCTORS = REGISTRIES['OPTIM_WRAPPER_CONSTRUCTORS']
PARAM_SCHEDULERS = REGISTRIES['PARAM_SCHEDULERS']

# From here on, a config can inherit from ours: _base_ = 'mmstvit::…'
MODULE2PACKAGE['mmstvit'] = 'mmstvit'
