"""Weights of a classifier's backbone in a detector and a segmentor, loaded by ``init_cfg`` alone."""

import pytest
import torch

from mmstvit.apis import build_model

from ..helpers import assert_equal, load_config, save_untrained


@pytest.fixture(scope='module')
def classifier(tmp_path_factory):
    checkpoint = tmp_path_factory.mktemp('classifier') / 'classifier.pth'
    save_untrained('imagenet/stvit-nano_scenes', checkpoint)
    return checkpoint


@pytest.mark.parametrize('name', ['mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes', 'upernet/stvit-nano_upernet_scenes'])
def test_backbone_starts_from_the_weights_of_the_classifier(name, classifier):
    weights = torch.load(classifier, weights_only=True)['state_dict']
    expected = {key.removeprefix('backbone.'): w for key, w in weights.items() if key.startswith('backbone.')}
    cfg = load_config(name)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(classifier), prefix='backbone.')
    torch.manual_seed(1)  # differs from the seed of the classifier
    model = build_model(cfg)
    before = {key: w.clone() for key, w in model.backbone.state_dict().items()}
    assert any(not torch.equal(before[key], expected[key]) for key in expected)
    model.init_weights()
    assert_equal(model.backbone.state_dict(), expected)
