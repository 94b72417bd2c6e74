"""Our models by name: from MMPreTrain, whichever package is imported first, and from ``mmengine.hub``."""

from pathlib import Path
from types import ModuleType

import mmengine.hub
import pytest
from mmengine.registry import DefaultScope

import mmstvit
from mmstvit import STViT
from mmstvit.dependencies import require_library

from .helpers import ROOT, run_python

CONFIGS = {
    'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py': 'MaskRCNN',
    'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes.py': 'CascadeRCNN',
    'upernet/stvit-nano_upernet_scenes.py': 'EncoderDecoder',
    'imagenet/stvit-nano_scenes.py': 'ImageClassifier',
}
CLASSIFIERS = sorted(path.stem for path in (ROOT / 'configs' / 'imagenet').glob('*.py'))


@pytest.mark.long
@pytest.mark.parametrize('imports', ['mmstvit, mmpretrain', 'mmpretrain, mmstvit'])
def test_mmpretrain_lists_and_builds_our_classifiers(imports, tmp_path):
    code = f"""
import sys
import {imports}
from importlib.machinery import SourceFileLoader

finders = [finder for finder in sys.meta_path if type(finder).__module__ == 'mmstvit.hub']
assert not finders and isinstance(mmpretrain.apis.model.__loader__, SourceFileLoader)
names = mmpretrain.list_models('stvit*')
assert set(names) < set(mmpretrain.list_models()) and 'swin-tiny_16xb64_in1k' in mmpretrain.list_models()
model = mmpretrain.get_model('stvit-nano_scenes')
assert isinstance(model.backbone, mmstvit.STViT) and not model.training
print(*names, sum(p.numel() for p in model.parameters()) == model._metainfo.metadata.parameters)
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].split() == [*CLASSIFIERS, 'True']


def test_nothing_of_mmpretrain_is_imported_for_that(tmp_path):
    code = """
import sys, mmstvit
assert not {'mmpretrain', 'modelindex'} & set(sys.modules)
assert [type(finder).__module__ for finder in sys.meta_path].count('mmstvit.hub') == 1
import importlib; importlib.reload(mmstvit)
assert [type(finder).__module__ for finder in sys.meta_path].count('mmstvit.hub') == 1
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_sources_that_are_not_installed_leave_mmpretrain_alone(monkeypatch, tmp_path):
    """They have no ``.mim`` folder, and importing mmstvit must work all the same."""
    model_hub_is_missing = ModuleType('mmpretrain.apis.model')
    with pytest.raises(AttributeError, match='ModelHub'):
        mmstvit.hub._register_classifiers(model_hub_is_missing)
    monkeypatch.setattr(mmstvit.hub, '_MIM', tmp_path)
    mmstvit.hub._register_classifiers(model_hub_is_missing)


@pytest.mark.parametrize('config', CONFIGS)
class TestMMEngineHub:
    def test_builds_the_model_of_a_config(self, config):
        model = mmengine.hub.get_model(f'mmstvit::{config}')
        assert type(model).__name__ == CONFIGS[config]
        assert isinstance(model.backbone, STViT)
        metafile = mmengine.load(ROOT / 'configs' / Path(config).parent / 'metafile.yml')
        (entry,) = [entry for entry in metafile['Models'] if entry['Name'] == Path(config).stem]
        assert sum(p.numel() for p in model.parameters()) == entry['Metadata']['Parameters']

    def test_reads_a_config(self, config):
        cfg = mmengine.hub.get_config(f'mmstvit::{config}')
        assert Path(cfg.filename).resolve() == ROOT / 'configs' / config

    def test_says_that_there_are_no_weights(self, config):
        with pytest.raises(AssertionError, match='Cannot find `Weights`'):
            mmengine.hub.get_model(f'mmstvit::{config}', pretrained=True)


def test_arguments_of_the_hub_reach_the_model():
    model = mmengine.hub.get_model(
        'mmstvit::imagenet/stvit-nano_scenes.py', init_cfg=dict(type='Normal', layer='Linear')
    )
    assert model.init_cfg['type'] == 'Normal'


def test_a_config_that_does_not_exist_is_refused():
    with pytest.raises(FileNotFoundError, match='mask-rcnn_stvit-tiny'):
        mmengine.hub.get_config('mmstvit::mask_rcnn/mask-rcnn_stvit-tiny_fpn_1x_coco.py')


def test_other_scopes_keep_their_own_models():
    mmengine.hub.get_model('mmstvit::imagenet/stvit-nano_scenes.py')
    require_library('mmdet')
    from mmdet.models import MaskRCNN
    from mmdet.registry import MODELS

    with DefaultScope.overwrite_default_scope('mmdet'):
        assert MODELS.get('MaskRCNN') is MaskRCNN
