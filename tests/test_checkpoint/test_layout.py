"""Official keys and shapes are converted to those of an mmpretrain classifier and back."""

import re

import pytest
import torch
from torch import Tensor

from mmstvit import STViT
from mmstvit.checkpoint import convert_official, convert_to_official, is_deploy_form, is_official
from mmstvit.errors import CheckpointError

from ..helpers import DATA, meta_classifier, official_shapes, published_weights, tiny

SIZES = ['small', 'base', 'large']


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """The published weights of a golden case with layer scale."""
    return torch.load(DATA / 'padded_layerscale.pt', weights_only=True)['state_dict']


class TestRefusal:
    @pytest.mark.parametrize('key', ['backbone.patch_embed.convs.0.weight', 'layers.3.downsample.proj.0.weight'])
    def test_unknown_key_is_named(self, weights, key):
        with pytest.raises(ValueError, match=re.escape(repr(key))) as caught:
            convert_official({**weights, key: torch.zeros(1)})
        assert f'1 of {len(weights) + 1} entries' in str(caught.value)

    def test_wrapped_weights_are_refused_with_a_remedy(self, weights):
        with pytest.raises(ValueError, match="'model'") as caught:
            convert_official({'model': weights, 'epoch': 300})
        assert "under 'model'" in caught.value.remedy
        assert "'epoch'" in str(caught.value)

    @pytest.mark.parametrize(
        ('content', 'words'),
        [
            ([], 'a state dict with at least one key is needed'),
            ({}, 'a state dict with at least one key is needed'),
            ({3: torch.ones(1)}, '1 of 1 entries .*3'),
            ({'head.weight': 'text'}, "1 of 1 entries .*'head.weight'"),
        ],
    )
    def test_what_is_no_state_dict_is_refused(self, content, words):
        with pytest.raises(ValueError, match=words):
            convert_official(content)

    def test_a_block_with_an_absurd_number_is_unknown(self, weights):
        key = f'layers.0.blocks.{"9" * 5000}.gamma_1'
        with pytest.raises(ValueError, match=r'1 of .* entries are not of a published STViT'):
            convert_official({**weights, key: torch.zeros(1)})


class TestReverse:
    @pytest.mark.parametrize('size', SIZES)
    def test_keys_shapes_and_order_are_the_official_ones(self, size):
        converted = convert_to_official(meta_classifier(size).state_dict())
        assert [(key, tuple(value.shape)) for key, value in converted.items()] == list(official_shapes(size).items())

    @pytest.mark.parametrize('key', ['stages.0.0.gamma1', 'backbone.stages.4.0.gamma1', 'rpn_head.conv.weight'])
    def test_unknown_keys_are_named(self, weights, key):
        ours = convert_official(weights)
        with pytest.raises(CheckpointError, match=f'1 of {len(ours) + 1} entries are not .* classifier: {key!r}'):
            convert_to_official({**ours, key: torch.zeros(1)})

    def test_the_deploy_form_is_refused(self):
        form = {f'backbone.{key}': value for key, value in STViT('nano', deploy=True).state_dict().items()}
        with pytest.raises(CheckpointError, match='in deploy form'):
            convert_to_official(form)


class TestForms:
    def test_official(self):
        keys = list(published_weights('small'))
        assert is_official(keys) and is_official(key for key in keys if key.startswith('layers.'))
        assert not is_official(meta_classifier('small').state_dict())
        assert not is_official(key for key in keys if 'stoken_refine' not in key)

    def test_deploy_form(self):
        assert is_deploy_form(STViT('nano', deploy=True).state_dict())
        assert is_deploy_form([f'a.backbone.{key}' for key in STViT('nano', deploy=True).state_dict()])
        assert not is_deploy_form(tiny().state_dict())
        assert not is_deploy_form(['neck.conv.weight'])
