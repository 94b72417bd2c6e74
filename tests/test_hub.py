"""Models by name: from ``mmengine.hub``, and from MMPreTrain after ``register_models()``."""

import sys

import mmengine.hub
import pytest
from mmengine.registry import DefaultScope

import mmstvit
from mmstvit import STViT, dependencies
from mmstvit.errors import UserError

from .helpers import ROOT

CONFIGS = {
    'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py': 'MaskRCNN',
    'faster_rcnn/faster-rcnn_stvit-nano_fpn_scenes.py': 'FasterRCNN',
    'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes.py': 'CascadeRCNN',
    'upernet/stvit-nano_upernet_scenes.py': 'EncoderDecoder',
    'imagenet/stvit-nano_scenes.py': 'ImageClassifier',
}
CLASSIFIERS = sorted(path.stem for path in (ROOT / 'configs' / 'imagenet').glob('*.py'))


class TestMMPreTrain:
    @pytest.fixture
    def names(self, monkeypatch):
        model_hub = pytest.importorskip('mmpretrain.apis').ModelHub
        monkeypatch.setattr(model_hub, '_models_dict', {})
        return model_hub

    def test_names_are_listed_after_the_call(self, names):
        import mmpretrain

        assert mmpretrain.list_models('stvit*') == []
        mmstvit.register_models()
        mmstvit.register_models()
        assert mmpretrain.list_models('stvit*') == CLASSIFIERS
        model = mmpretrain.get_model('stvit-nano_scenes')
        assert type(model).__name__ == 'ImageClassifier' and isinstance(model.backbone, STViT)
        with pytest.warns(UserWarning, match='Unable to find pre-defined checkpoint'):  # nothing is published: see docs
            mmpretrain.get_model('stvit-nano_scenes', pretrained=True)

    def test_sources_that_are_not_installed_are_refused(self, names, monkeypatch, tmp_path):
        monkeypatch.setattr(dependencies, '_PACKAGE', tmp_path)
        with pytest.raises(UserError, match=r'metafile\.yml') as raised:
            mmstvit.register_models()
        assert 'pip install -e .' in raised.value.remedy


class TestMMEngineHub:
    @pytest.mark.parametrize('config', CONFIGS)
    def test_builds_the_model_of_a_config(self, config):
        model = mmengine.hub.get_model(f'mmstvit::{config}')
        assert type(model).__name__ == CONFIGS[config]
        assert isinstance(model.backbone, STViT)

    def test_arguments_reach_the_model_whatever_the_default_scope(self):
        with DefaultScope.overwrite_default_scope('mmdet'):
            model = mmengine.hub.get_model(
                'mmstvit::imagenet/stvit-nano_scenes.py', init_cfg=dict(type='Normal', layer='Linear')
            )
            assert DefaultScope.get_current_instance().scope_name == 'mmdet'
        assert model.init_cfg['type'] == 'Normal'

    def test_missing_library_is_named_with_the_command_that_installs_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, 'mmseg', None)
        with pytest.raises(ImportError, match=r'mmseg.*pip install onedl-mmsegmentation'):
            mmengine.hub.get_model('mmstvit::upernet/stvit-nano_upernet_scenes.py')
