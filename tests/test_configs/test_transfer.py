"""From a classifier's checkpoint to a detector's and a segmentor's backbone, by ``init_cfg`` alone."""

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from ..helpers import assert_equal, load_config, save_untrained

CLASSIFIER = 'imagenet/stvit-nano_scenes'


@pytest.mark.parametrize(
    'name',
    [
        'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes',
        'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes',
        'upernet/stvit-nano_upernet_scenes',
    ],
)
def test_the_backbone_starts_from_the_classifiers_weights(name, tmp_path):
    checkpoint = tmp_path / 'classifier.pth'
    save_untrained(CLASSIFIER, checkpoint)
    weights = torch.load(checkpoint, weights_only=True)['state_dict']
    expected = {key.removeprefix('backbone.'): w for key, w in weights.items() if key.startswith('backbone.')}
    cfg = load_config(name)
    torch.manual_seed(1)  # another one than the classifier's
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')
        model = MODELS.build(cfg.model)
    before = {key: w.clone() for key, w in model.backbone.state_dict().items()}
    assert any(not torch.equal(before[key], expected[key]) for key in expected)
    model.init_weights()
    assert_equal(model.backbone.state_dict(), expected)
