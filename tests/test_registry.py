"""Every OpenMMLab scope builds the models by name."""

import pytest

import mmstvit
from mmstvit.registry import MODELS

from .helpers import run_python


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmpretrain'])
def test_scope_builds_the_backbone_without_importing_mmstvit_first(scope, tmp_path):
    pytest.importorskip(scope)
    code = f"""
import sys
from {scope}.registry import MODELS
assert 'mmstvit' not in sys.modules
print(type(MODELS.build(dict(type='mmstvit.STViT', arch='nano'))))
"""
    result = run_python(code, tmp_path)
    assert result.stdout.strip() == "<class 'mmstvit.models.stvit.STViT'>", result.stderr


def test_own_scope_builds_what_the_package_exports():
    assert type(MODELS.build({'type': 'STViT', 'arch': 'nano'})) is mmstvit.STViT
    assert type(MODELS.build({'type': 'mmstvit.STViTNeck', 'in_channels': 4})) is mmstvit.STViTNeck


def test_registry_is_a_child_of_mmengines():
    assert MODELS.scope == 'mmstvit'
    assert MODELS.parent.scope == 'mmengine'
