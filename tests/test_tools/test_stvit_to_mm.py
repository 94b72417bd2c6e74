"""``stvit_to_mm.py`` and ``mm_to_stvit.py`` on files as the authors publish them, as we write them, and on others."""

import argparse
import hashlib
import os
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mmstvit import STViT
from mmstvit.apis import build_model
from mmstvit.apis.converters import count, verify_classifier
from mmstvit.arch import ARCHS
from mmstvit.checkpoint import adapt_stem, convert_official
from mmstvit.errors import CheckpointError

from ..helpers import DATA, assert_equal, learned, load_config, load_tool, official_shapes, save_untrained

stvit_to_mm = load_tool('model_converters/stvit_to_mm.py')
mm_to_stvit = load_tool('model_converters/mm_to_stvit.py')
CLASSIFIER = 'imagenet/stvit-nano_scenes'


@pytest.fixture
def weights() -> dict[str, Tensor]:
    """The published weights of a golden case with layer scale."""
    return torch.load(DATA / 'padded_layerscale.pt', weights_only=True)['state_dict']


@pytest.fixture
def published(weights, tmp_path) -> Path:
    """A file as the authors publish it."""
    torch.save({'model': weights}, tmp_path / 'published.pth')
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
        assert "weights: under 'model'\n" in output

    @pytest.mark.parametrize(
        'wrap',
        [
            lambda weights: {
                'model': weights,
                'optimizer': {'state': {}},
                'epoch': 300,
                'args': argparse.Namespace(lr=1),
            },
            lambda weights: {'model': weights, 'model_ema': {key: value + 1 for key, value in weights.items()}},
            lambda weights: {'model_ema': {f'module.{key}': value for key, value in weights.items()}},
            lambda weights: {'state_dict': {f'module._orig_mod.{key}': value for key, value in weights.items()}},
            lambda weights: weights,
        ],
        ids=['training', 'model beside its average', 'average', 'prefixes', 'weights alone'],
    )
    def test_every_wrapping(self, wrap, weights, convert):
        torch.save(wrap(weights), 'wrapped.pth')
        convert(stvit_to_mm, 'wrapped.pth', 'mm.pth')
        assert_equal(load('mm.pth')['state_dict'], convert_official(weights))

    def test_the_average_beside_the_model_on_demand(self, weights, convert):
        average = {key: value + 1 for key, value in weights.items()}
        torch.save({'model': weights, 'model_ema': average}, 'both.pth')
        convert(stvit_to_mm, 'both.pth', 'mm.pth', '--key', 'model_ema')
        assert_equal(load('mm.pth')['state_dict'], convert_official(average))

    def test_safetensors(self, weights, convert):
        safetensors = pytest.importorskip('safetensors.torch')
        safetensors.save_file(weights, 'published.safetensors')
        convert(stvit_to_mm, 'published.safetensors', 'mm.pth')
        assert_equal(load('mm.pth')['state_dict'], convert_official(weights))

    @pytest.mark.parametrize('channels', [1, 4])
    def test_other_channels(self, channels, weights, published, convert):
        output = convert(stvit_to_mm, published, 'mm.pth', '--in-channels', channels)
        assert_equal(load('mm.pth')['state_dict'], adapt_stem(convert_official(weights), channels))
        assert re.search(rf'stem +3 → {channels} channels', output)

    def test_other_channels_for_what_is_in_our_layout(self, weights, convert):
        ours = {**convert_official(weights), 'rpn_head.weight': torch.ones(1)}
        for prefix in ('', 'detector.'):
            weights = {f'{prefix}{key}': value for key, value in ours.items()}
            torch.save({'state_dict': weights, 'meta': {'epoch': 3}, 'optimizer': {}}, 'ours.pth')
            output = convert(stvit_to_mm, 'ours.pth', 'gray.pth', '--in-channels', 1, '--force')
            gray = load('gray.pth')
            assert_equal(gray.pop('state_dict'), adapt_stem(weights, 1))
            assert gray == {'meta': {'epoch': 3}}
            assert 'backbone: strictly loaded' in output

    def test_a_backbone_alone(self, weights, convert):
        backbone = {key: value for key, value in weights.items() if not key.startswith(('proj.', 'norm.', 'head.'))}
        torch.save({'model': backbone}, 'backbone.pth')
        assert 'learned parameters in backbone\n' in convert(stvit_to_mm, 'backbone.pth', 'mm.pth')
        assert_equal(load('mm.pth')['state_dict'], convert_official(backbone))

    def test_an_existing_file_by_force(self, weights, published, convert):
        Path('mm.pth').write_text('old')
        convert(stvit_to_mm, published, 'mm.pth', '--force')
        assert_equal(load('mm.pth')['state_dict'], convert_official(weights))


class TestThereAndBack:
    def test_published_ours_published(self, weights, published, convert):
        convert(stvit_to_mm, published, 'mm.pth')
        output = convert(mm_to_stvit, 'mm.pth', 'back.pth')
        back = load('back.pth')
        assert list(back) == ['model'] and list(back['model']) == list(weights)
        assert_equal(back['model'], weights)
        assert 'comes back bit for bit' in output

    def test_ours_published_ours_of_a_training(self, convert):
        model = save_untrained(CLASSIFIER, Path('trained.pth'))
        output = convert(mm_to_stvit, 'trained.pth', 'published.pth')
        assert 'STViT, nano; ' in output
        convert(stvit_to_mm, 'published.pth', 'back.pth')
        assert_equal(load('back.pth')['state_dict'], model.state_dict())

    def test_a_converted_file_predicts_as_the_model(self, convert):
        """Through the whole of it: published layout, our tool, the libraries' classifier."""
        model = learned(save_untrained(CLASSIFIER, Path('trained.pth')))
        torch.save({'state_dict': model.state_dict()}, 'trained.pth')
        convert(mm_to_stvit, 'trained.pth', 'published.pth')
        convert(stvit_to_mm, 'published.pth', 'back.pth')
        other = build_model(load_config(CLASSIFIER)).eval()
        other.load_state_dict(load('back.pth')['state_dict'])
        x = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(other(x), model(x))


def strange(kind: str, weights: dict[str, Tensor]) -> object:
    """Content of files that cannot be converted."""
    ours = convert_official(weights)
    some = dict(list(weights.items())[:-20])
    return {
        'list': [1],
        'empty': {},
        'other model': {'model': {'layer1.weight': torch.ones(1)}},
        'unknown key': {'model': {**weights, 'extra.weight': torch.ones(1)}},
        'missing key': {'model': {key: value for key, value in weights.items() if key != 'head.weight'}},
        'missing block': {'model': {key: value for key, value in weights.items() if 'layers.0' not in key}},
        'truncated': {'model': {**some, 'head.weight': weights['head.weight']}},
        'another shape': {'model': {**weights, 'norm.weight': torch.ones(3)}},
        'another rank': {'model': {**weights, 'head.weight': torch.ones(3)}},
        'nan': {'model': {**weights, 'norm.weight': torch.full_like(weights['norm.weight'], torch.nan)}},
        'inf': {'model': {**weights, 'head.bias': torch.full_like(weights['head.bias'], torch.inf)}},
        'ours': {'state_dict': ours},
        'detector': {'state_dict': {**ours, 'rpn_head.weight': torch.ones(1)}},
        'inference form': {
            'state_dict': {f'backbone.{key}': value for key, value in STViT('nano', deploy=True).state_dict().items()}
        },
    }[kind]


class TestRefused:
    @pytest.mark.parametrize(
        ('kind', 'message'),
        [
            ('list', r'strange\.pth: a dict with weights is needed, but the file holds a list'),
            ('empty', r'strange\.pth: a dict with weights is needed, .* an empty dict'),
            ('other model', r"strange\.pth: these are no published STViT weights, .*'layer1\.weight'"),
            ('unknown key', r"strange\.pth: 1 of .* 'extra\.weight'"),
            ('missing key', r"strange\.pth: the weights do not fit .*'head\.fc\.weight' is missing"),
            ('missing block', r'strange\.pth: no STViT is in the weights'),
            ('truncated', r'strange\.pth: the weights do not fit .*'),
            ('another shape', r'strange\.pth: the weights do not fit .*size mismatch for neck\.norm\.weight'),
            ('another rank', r'strange\.pth: the weights do not fit '),
            ('nan', r'strange\.pth has NaN or Inf in 1 of .*neck\.norm\.weight'),
            ('inf', r'strange\.pth has NaN or Inf in 1 of .*head\.fc\.bias'),
            ('ours', r'strange\.pth: the weights are in our layout already'),
            ('detector', r'strange\.pth: the weights are in our layout already'),
        ],
    )
    def test_what_cannot_be_converted(self, kind, message, weights, refused, tmp_path):
        torch.save(strange(kind, weights), tmp_path / 'strange.pth')
        refused(message, stvit_to_mm, 'strange.pth', 'mm.pth')

    @pytest.mark.parametrize(
        ('kind', 'message'),
        [
            ('list', r'strange\.pth: a dict with weights is needed'),
            ('other model', r'strange\.pth: 1 of 1 entries are not of an STViT classifier'),
            ('detector', r"strange\.pth: 1 of .* entries are not of an STViT classifier: 'rpn_head\.weight'"),
            ('inference form', r'strange\.pth: the weights are those of the inference form'),
            ('unknown key', r"strange\.pth: the weights are in the release's layout already"),
        ],
    )
    def test_what_cannot_be_converted_back(self, kind, message, weights, refused, tmp_path):
        torch.save(strange(kind, weights), tmp_path / 'strange.pth')
        refused(message, mm_to_stvit, 'strange.pth', 'published.pth')

    @pytest.mark.parametrize('tool', [stvit_to_mm, mm_to_stvit], ids=['stvit_to_mm', 'mm_to_stvit'])
    class TestByBoth:
        def test_to_overwrite(self, tool, weights, published, refused, tmp_path):
            (tmp_path / 'mm.pth').write_text('precious')
            refused(r'mm\.pth exists.*--force', tool, published, 'mm.pth')
            refused(r'published\.pth is the file to read', tool, published, published, '--force')
            refused('is a folder', tool, published, '.', '--force')
            assert (tmp_path / 'mm.pth').read_text() == 'precious'

        def test_what_is_no_file_of_torch(self, tool, refused, tmp_path):
            (tmp_path / 'empty.pth').touch()
            (tmp_path / 'page.pth').write_text('<html>too many requests</html>')
            refused(r'empty\.pth is empty', tool, 'empty.pth', 'mm.pth')
            refused(r'page\.pth is a web page', tool, 'page.pth', 'mm.pth')
            refused(r'gone\.pth does not exist', tool, 'gone.pth', 'mm.pth')

        def test_to_write_where_nothing_can_be(self, tool, weights, refused, tmp_path):
            content = {'model': weights} if tool is stvit_to_mm else {'state_dict': convert_official(weights)}
            torch.save(content, tmp_path / 'source.pth')
            refused(r'source\.pth/x/mm\.pth .* cannot be written', tool, 'source.pth', 'source.pth/x/mm.pth')

    @pytest.mark.parametrize('channels', [0, 2, -3])
    def test_channels_without_a_meaning(self, channels, published, refused):
        refused('to 1 channel or to more than 3', stvit_to_mm, published, 'mm.pth', '--in-channels', channels)

    def test_the_inference_form_for_other_channels(self, weights, refused, tmp_path):
        torch.save(strange('inference form', weights), tmp_path / 'strange.pth')
        message = r'strange\.pth: the weights are those of the inference form: convert .* training'
        refused(message, stvit_to_mm, 'strange.pth', 'mm.pth', '--in-channels', 1)

    def test_a_key_that_is_not_there(self, published, refused):
        refused("published.pth: the file has nothing under 'ema'", stvit_to_mm, published, 'mm.pth', '--key', 'ema')

    def test_a_conversion_that_does_not_lead_back(self, weights, refused, tmp_path, monkeypatch):
        """The tool compares; it does not trust."""
        torch.save({'state_dict': convert_official(weights)}, tmp_path / 'ours.pth')
        original = mm_to_stvit.convert_to_official
        monkeypatch.setattr(
            mm_to_stvit,
            'convert_to_official',
            lambda state_dict: {key: value + (key == 'head.bias') for key, value in original(state_dict).items()},
        )
        refused(r"does not lead back to the weights, such as \['head\.fc\.bias'\]", mm_to_stvit, 'ours.pth', 'new.pth')


class TestVerification:
    @pytest.mark.parametrize('size', ['small', 'base', 'large'])
    def test_every_published_size(self, size):
        weights = convert_official({key: torch.zeros(shape) for key, shape in official_shapes(size).items()})
        assert verify_classifier(weights) == (size, ['backbone', 'neck', 'head'])
        learned = {'small': 25_495_624, 'base': 51_691_288, 'large': 94_971_096}
        assert count(weights) == learned[size]

    @pytest.mark.parametrize('ratio', [1.0, 2.7, 3.33, 0.5])
    @pytest.mark.parametrize('scale', [0.0, 0.1])
    def test_other_architectures(self, ratio, scale):
        arch = {'channels': (6, 10, 14, 22), 'depths': (1, 2, 1, 1), 'num_heads': (1, 2, 7, 11), 'mlp_ratio': ratio}
        arch['layer_scale_init_value'] = (0.0, scale, scale, 0.0)
        weights = {f'backbone.{key}': value for key, value in STViT(arch, in_channels=5).state_dict().items()}
        assert verify_classifier(weights) == ('channels 6, 10, 14, 22 and depths 1, 2, 1, 1', ['backbone'])

    @pytest.mark.parametrize('key', ['backbone.stages.2.1.norm2.bias', 'neck.norm.running_var', 'head.fc.bias'])
    def test_each_missing_weight_is_noticed(self, key, weights):
        ours = convert_official(weights)
        del ours[key]
        with pytest.raises(CheckpointError, match=re.escape(key)):
            verify_classifier(ours)

    def test_names_of_architectures_are_those_of_the_package(self):
        with torch.device('meta'):
            for name in ARCHS:
                ours = {f'backbone.{key}': value for key, value in STViT(name).state_dict().items()}
                assert verify_classifier(ours) == (name, ['backbone'])


class Bomb:
    def __reduce__(self):
        return os.mkdir, ('exploded',)


def test_a_harmful_file_is_refused_and_not_executed(tool, tmp_path):
    """In a process of its own, as a user does it."""
    torch.save({'model': Bomb()}, tmp_path / 'strange.pth')
    done = tool('model_converters/stvit_to_mm.py', 'strange.pth', 'mm.pth', cwd=tmp_path)
    assert done.returncode == 1 and done.stdout == ''
    assert re.fullmatch(r'error: strange\.pth wants to run \S*mkdir.* nothing of it was executed.*\n', done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ['strange.pth']
