"""What a config names ``mmstvit.<name>`` is found in processes that do not import mmstvit."""

import inspect
import json

import pytest
from mmengine.registry import Registry

from mmstvit import registry

from ..helpers import ROOT, run_python

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
            found[attribute] = [registry.get(f'mmstvit.{{name}}').__module__ for name in names]
print(json.dumps(found))
"""


def registered() -> dict[str, list[str]]:
    """The classes in each of our registries; the attribute is that of MMEngine's registry too."""
    names = {}
    for attribute, value in vars(registry).items():
        if isinstance(value, Registry) and value.scope == 'mmstvit':
            value.import_from_location()
            names[attribute] = [name for name, item in value.module_dict.items() if inspect.isclass(item)]
    return names


def test_every_registry_has_something():
    names = registered()
    assert {'MODELS', 'HOOKS', 'PARAM_SCHEDULERS', 'OPTIM_WRAPPERS', 'OPTIM_WRAPPER_CONSTRUCTORS'} <= set(names)
    assert all(names.values())


@pytest.mark.long
@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_every_name_is_found_from_every_library(library):
    names = registered()
    done = run_python(LOOK_UP.format(library=library, names=names), cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert {attribute: len(modules) for attribute, modules in found.items()} == {k: len(v) for k, v in names.items()}
    assert all(module.startswith('mmstvit.') for modules in found.values() for module in modules)
