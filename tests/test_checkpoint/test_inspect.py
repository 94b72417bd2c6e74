"""Architectures are recognized, and backbones are taken out and adapted, by names and shapes of weights."""

import re

import pytest
import torch
from torch import Tensor

from mmstvit import STViT
from mmstvit.checkpoint import (
    Size,
    adapt_stem,
    backbone_weights,
    convert_official,
    find_size,
    is_official,
    recognize_arch,
)
from mmstvit.errors import CheckpointError

from ..helpers import DATA, TINY, assert_equal, image, published_weights, relative_error, tiny

SIZES = ['small', 'base', 'large']


@pytest.fixture
def published() -> dict[str, Tensor]:
    """The published weights of a golden case."""
    return torch.load(DATA / 'divisible.pt', weights_only=True)['state_dict']


class TestRecognizeArch:
    @pytest.mark.parametrize('size', SIZES)
    def test_official_ours_and_with_other_prefixes(self, size):
        published = published_weights(size)
        ours = convert_official(published)
        bare, _ = backbone_weights(ours)
        detector = {f'detector.{key}': value for key, value in ours.items()}
        assert [recognize_arch(weights) for weights in (published, ours, bare, detector)] == [size] * 4

    def test_the_deploy_form(self):
        assert recognize_arch(STViT('nano', deploy=True).state_dict()) == 'nano'

    def test_the_first_stages_are_enough_if_they_differ(self):
        with torch.device('meta'):
            assert recognize_arch(STViT('large', out_indices=(1,)).state_dict()) == 'large'
            # the first stage of base and large is the same
            assert recognize_arch(STViT('large', out_indices=(0,)).state_dict()) == 'channels 96 and depths 4'

    def test_another_architecture_is_described(self):
        assert find_size(tiny().state_dict()) == Size(TINY['channels'], TINY['depths'])
        assert recognize_arch(tiny().state_dict()) == 'channels 8, 12, 16, 24 and depths 1, 1, 2, 1'

    def test_other_models_are_not_stvit(self):
        registry = pytest.importorskip('mmpretrain.registry')
        arch = dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4)
        swin = registry.MODELS.build(dict(type='mmpretrain.SwinTransformer', arch=arch)).state_dict()
        resnet = registry.MODELS.build(dict(type='mmpretrain.ResNet', depth=18)).state_dict()
        official_swin = {key.replace('stages', 'layers'): value for key, value in swin.items()}
        assert any(key.startswith('layers.0.blocks.0.attn') for key in official_swin)
        for weights in (swin, official_swin, resnet):
            assert recognize_arch(weights) is None and not is_official(weights)

    def test_the_first_of_two(self):
        with torch.device('meta'):
            teacher, student = STViT('small').state_dict(), STViT('nano').state_dict()
        weights = {f'teacher.{key}': value for key, value in teacher.items()}
        weights |= {f'student.{key}': value for key, value in student.items()}
        assert recognize_arch(weights) == 'small'


class TestBackboneWeights:
    @pytest.mark.parametrize('prefix', [None, 'backbone.'])
    def test_published_file(self, published, prefix):
        kept, dropped = backbone_weights(published, prefix)
        expected = convert_official(published)
        assert_equal({f'backbone.{key}': value for key, value in kept.items()}, without_tail(expected))
        tail = [key for key in published if key.split('.')[0] in ('proj', 'norm', 'head')]
        constants = [key for key in published if 'fold.weights' in key]
        assert sorted(dropped) == sorted(tail + constants)

    @pytest.mark.parametrize('before', ['', 'backbone.', 'detector.backbone.'])
    def test_ours_with_any_prefix(self, before):
        weights = tiny().state_dict()
        beside = {f'{before}x'.replace('backbone.', 'neck.'): torch.ones(1)} if before else {}
        kept, dropped = backbone_weights({f'{before}{key}': value for key, value in weights.items()} | beside)
        assert_equal(kept, weights)
        assert dropped == list(beside)

    def test_several_need_a_prefix(self):
        weights = {f'{who}.{key}': value for who in ('a', 'b') for key, value in tiny().state_dict().items()}
        with pytest.raises(CheckpointError, match=re.escape("['a.', 'b.']")):
            backbone_weights(weights)
        kept, dropped = backbone_weights(weights, prefix='b.')
        assert_equal(kept, tiny().state_dict())
        assert len(dropped) == len(kept)


def without_tail(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key.startswith('backbone.')}


class TestAdaptStem:
    key = 'patch_embed.convs.0.weight'

    def features(self, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        model = STViT(TINY, in_channels=x.shape[1]).eval()
        model.load_state_dict(weights)
        with torch.no_grad():
            return model(x)

    def test_gray_equals_the_gray_image_in_three_channels(self):
        weights, gray = tiny().state_dict(), image(2, 1, 40, 56)
        actual = self.features(adapt_stem(weights, 1), gray)
        expected = self.features(weights, gray.expand(-1, 3, -1, -1))
        assert max(relative_error(a, b) for a, b in zip(actual, expected, strict=True)) <= 1e-5

    def test_further_channels_are_ignored_at_first(self):
        weights, x = tiny().state_dict(), image(1, 4, 40, 56)
        actual, expected = self.features(adapt_stem(weights, 4), x), self.features(weights, x[:, :3])
        assert max(relative_error(a, b) for a, b in zip(actual, expected, strict=True)) <= 1e-5

    @pytest.mark.parametrize('channels', [3, 4])
    def test_a_stem_that_fits_is_unchanged(self, channels):
        weights = tiny(in_channels=channels).state_dict()
        assert_equal(adapt_stem(weights, channels), weights)

    def test_only_from_three_channels(self):
        with pytest.raises(CheckpointError, match=r'convs\.0\.weight is for 4 channels'):
            adapt_stem(tiny(in_channels=4).state_dict(), 1)

    def test_without_a_stem(self):
        with pytest.raises(CheckpointError, match='no stem'):
            adapt_stem({'a': torch.ones(1)}, 1)
