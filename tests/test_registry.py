"""``mmstvit.<Name>`` in every scope, and names of the libraries in the temporary scope ``mmstvit`` of MMEngine."""

import inspect
import json

import mmengine.registry
import pytest
from mmengine.registry import DefaultScope, Registry

import mmstvit
from mmstvit.registry import HOOKS, MODELS, REGISTRIES
from mmstvit.utils import register_all_modules

from .helpers import run_python

# As Runner looks a type up: in MMEngine's registry, in the scope of the config.
LOOK_UP = """
import json, sys
import mmengine.registry
from mmengine.registry import DefaultScope

found = {{}}
with DefaultScope.overwrite_default_scope({library!r}):
    for attribute, names in {names!r}.items():
        assert found or 'mmstvit' not in sys.modules
        with getattr(mmengine.registry, attribute).switch_scope_and_registry(None) as registry:
            found[attribute] = {{name: registry.get(f'mmstvit.{{name}}').__module__ for name in names}}
print(json.dumps(found))
"""


@pytest.mark.long
@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_every_name_is_found_from_a_library_without_importing_mmstvit(library, tmp_path):
    pytest.importorskip(library)
    register_all_modules()
    classes = {
        attribute: {name: item.__module__ for name, item in registry.module_dict.items() if inspect.isclass(item)}
        for attribute, registry in REGISTRIES.items()
        if len(registry) > 0
    }
    assert {'STViT', 'STViTNeck', 'InstanceSegTTAModel'} <= set(classes['MODELS'])
    assert {'HOOKS', 'PARAM_SCHEDULERS', 'OPTIM_WRAPPERS', 'OPTIM_WRAPPER_CONSTRUCTORS'} <= set(classes)
    names = {attribute: list(found) for attribute, found in classes.items()}
    done = run_python(LOOK_UP.format(library=library, names=names), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == classes


def test_every_registry_of_mmengine_has_a_child():
    roots = {name for name, root in vars(mmengine.registry).items() if isinstance(root, Registry)}
    assert set(REGISTRIES) == roots and 'DATASETS' in roots
    assert all(registry.root.children['mmstvit'] is registry for registry in REGISTRIES.values())


def test_own_scope_builds_what_the_package_exports():
    assert type(MODELS.build({'type': 'STViT', 'arch': 'nano'})) is mmstvit.STViT
    assert type(MODELS.build({'type': 'mmstvit.STViTNeck', 'in_channels': 4})) is mmstvit.STViTNeck


class TestTemporaryScope:
    """The default scope while MMEngine builds what a config inherits from ``mmstvit::``."""

    @pytest.fixture(autouse=True)
    def scope(self):
        pytest.importorskip('mmdet')
        with DefaultScope.overwrite_default_scope('mmdet'):
            yield

    def test_names_of_the_library_and_of_mmengine_are_found(self):
        from mmdet.engine.hooks import NumClassCheckHook
        from mmengine.hooks import IterTimerHook

        build = mmengine.registry.HOOKS.build
        assert type(build({'type': 'NumClassCheckHook', '_scope_': 'mmstvit'})) is NumClassCheckHook
        assert type(build({'type': 'IterTimerHook', '_scope_': 'mmstvit'})) is IterTimerHook
        for name in ('SeedHook', 'mmstvit.SeedHook'):
            assert type(build({'type': name, '_scope_': 'mmstvit'})) is HOOKS.get('SeedHook')

    def test_objects_are_built_in_the_scope_of_the_library(self):
        def current() -> str:
            return DefaultScope.get_current_instance().scope_name

        functions = REGISTRIES['FUNCTIONS'].root
        functions.register_module(name='current_scope', module=current)
        try:
            assert functions.build({'type': 'current_scope', '_scope_': 'mmstvit'}) == 'mmdet'
        finally:
            del functions.module_dict['current_scope']
        assert current() == 'mmdet'

    def test_unknown_name_is_reported_with_the_scope_that_was_searched(self):
        with pytest.raises(KeyError, match=r'CocoDatset is not in the mmdet::dataset registry'):
            mmengine.registry.DATASETS.build({'type': 'CocoDatset', '_scope_': 'mmstvit'})


class TestUnknownName:
    def test_similar_name_is_suggested(self):
        with pytest.raises(KeyError, match=r'STVit .* mmstvit::model .* Did you mean mmstvit\.STViT'):
            mmengine.registry.MODELS.build({'type': 'mmstvit.STVit'})

    def test_prefix_mmstvit_does_not_find_names_of_a_library(self):
        pytest.importorskip('mmdet')
        with DefaultScope.overwrite_default_scope('mmdet'), pytest.raises(KeyError, match='mmstvit::dataset'):
            mmengine.registry.DATASETS.build({'type': 'mmstvit.CocoDataset'})


def test_mmstvit_is_never_the_default_scope():
    with pytest.raises(ValueError, match='mmdet'):
        register_all_modules(init_default_scope=True)
