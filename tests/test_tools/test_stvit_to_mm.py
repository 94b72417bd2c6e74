"""``stvit_to_mm.py`` and ``mm_to_stvit.py`` convert published files and ours bit for bit, and refuse others."""

import argparse
import hashlib
import os
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmstvit import STViT, checkpoint
from mmstvit.apis.converters import verify_classifier
from mmstvit.checkpoint import adapt_stem, convert_official

from ..helpers import DATA, assert_equal, load_tool

stvit_to_mm = load_tool('model_converters/stvit_to_mm.py')
mm_to_stvit = load_tool('model_converters/mm_to_stvit.py')


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """The published weights of a golden case with layer scale."""
    return torch.load(DATA / 'padded_layerscale.pt', weights_only=True)['state_dict']


@pytest.fixture
def published(weights, tmp_path) -> Path:
    """A file as the authors publish it, with the options of the training run and an average."""
    average = {key: value + 1 for key, value in weights.items()}
    content = {'model': weights, 'model_ema': average, 'args': argparse.Namespace(lr=1), 'epoch': 300}
    torch.save(content, tmp_path / 'published.pth')
    return Path('published.pth')


def load(name: str) -> dict:
    return torch.load(name, weights_only=True)


class TestConversion:
    def test_a_published_file(self, weights, published, convert):
        output = convert(stvit_to_mm, published, 'new/mm.pth')
        assert_equal(load('new/mm.pth')['state_dict'], convert_official(weights))
        assert os.listdir('new') == ['mm.pth']
        assert hashlib.sha256(Path('new/mm.pth').read_bytes()).hexdigest() in output
        constants = sum('fold.weights' in key for key in weights)
        assert f'{len(weights) - constants} of {len(weights)} tensors' in output
        assert re.search(rf'dropped by name +{constants} \(attn\.unfold\.weights, attn\.fold\.weights', output)
        assert "weights: under 'model' (not used: 'model_ema')\n" in output

    def test_the_average_by_its_key_over_an_existing_file(self, weights, published, convert):
        Path('mm.pth').write_text('old')
        convert(stvit_to_mm, published, 'mm.pth', '--key', 'model_ema', '--force')
        average = {key: value + 1 for key, value in weights.items()}
        assert_equal(load('mm.pth')['state_dict'], convert_official(average))

    def test_a_backbone_alone_in_safetensors(self, weights, convert):
        safetensors = pytest.importorskip('safetensors.torch')
        backbone = {key: value for key, value in weights.items() if not key.startswith(('proj.', 'norm.', 'head.'))}
        safetensors.save_file(backbone, 'backbone.safetensors')
        assert 'learned parameters in backbone\n' in convert(stvit_to_mm, 'backbone.safetensors', 'mm.pth')
        assert_equal(load('mm.pth')['state_dict'], convert_official(backbone))

    @pytest.mark.parametrize('channels', [1, 4])
    def test_other_channels(self, channels, weights, published, convert):
        output = convert(stvit_to_mm, published, 'mm.pth', '--in-channels', channels)
        assert_equal(load('mm.pth')['state_dict'], adapt_stem(convert_official(weights), channels))
        assert re.search(rf'stem +3 → {channels} channels', output)

    def test_other_channels_for_a_file_in_our_layout(self, weights, convert):
        ours = {**convert_official(weights), 'rpn_head.weight': torch.ones(1)}
        for prefix in ('', 'detector.'):
            weights = {f'{prefix}{key}': value for key, value in ours.items()}
            torch.save({'state_dict': weights, 'meta': {'epoch': 3}, 'optimizer': {}}, 'ours.pth')
            convert(stvit_to_mm, 'ours.pth', 'gray.pth', '--in-channels', 1, '--force')
            gray = load('gray.pth')
            assert_equal(gray.pop('state_dict'), adapt_stem(weights, 1))
            assert gray == {'meta': {'epoch': 3}}


class TestThereAndBack:
    def test_published_ours_published(self, weights, published, convert):
        convert(stvit_to_mm, published, 'mm.pth')
        convert(mm_to_stvit, 'mm.pth', 'back.pth')
        back = load('back.pth')
        assert list(back) == ['model'] and list(back['model']) == list(weights)
        assert_equal(back['model'], weights)

    def test_ours_published_ours(self, convert):
        weights = {f'backbone.{key}': value for key, value in STViT('nano').state_dict().items()}
        torch.save({'state_dict': weights}, 'trained.pth')
        assert 'STViT, nano; ' in convert(mm_to_stvit, 'trained.pth', 'published.pth')
        convert(stvit_to_mm, 'published.pth', 'back.pth')
        assert_equal(load('back.pth')['state_dict'], weights)


class TestRefused:
    """What tests/bad_inputs has no case for."""

    def test_another_shape(self, weights, refused, tmp_path):
        torch.save({'model': {**weights, 'norm.weight': torch.ones(3)}}, tmp_path / 'strange.pth')
        message = r'strange\.pth: the weights do not fit .*size mismatch for neck\.norm\.weight'
        refused(message, stvit_to_mm, 'strange.pth', 'new.pth')

    def test_a_wrong_conversion_is_noticed(self, weights, refused, tmp_path, monkeypatch):
        torch.save({'state_dict': convert_official(weights)}, tmp_path / 'ours.pth')
        original = checkpoint.convert_to_official
        monkeypatch.setattr(
            checkpoint,
            'convert_to_official',
            lambda state_dict: {key: value + (key == 'head.bias') for key, value in original(state_dict).items()},
        )
        refused(r"gives other weights \(first: \['head\.fc\.bias'\]", mm_to_stvit, 'ours.pth', 'new.pth')


class TestVerification:
    @pytest.mark.parametrize(('ratio', 'scale'), [(2.7, 0.1), (3.33, 0.0)])
    def test_other_architectures(self, ratio, scale):
        arch = {'channels': (6, 10, 14, 22), 'depths': (1, 2, 1, 1), 'num_heads': (1, 2, 7, 11), 'mlp_ratio': ratio}
        arch['layer_scale_init_value'] = (0.0, scale, scale, 0.0)
        weights = {f'backbone.{key}': value for key, value in STViT(arch, in_channels=5).state_dict().items()}
        assert 'channels 6, 10, 14, 22 and depths 1, 2, 1, 1; ' in verify_classifier(weights)
