"""What a file holds: found, named and cut out by names and shapes, for every wrapping that published files come in."""

import re

import pytest
import torch
import torch.nn.functional as F
from mmengine.model import ExponentialMovingAverage
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from mmstvit import STViT
from mmstvit.arch import ARCHS
from mmstvit.checkpoint import Size, adapt_stem, backbone_weights, convert_official, measure, recognise_arch
from mmstvit.errors import CheckpointError
from mmstvit.fileio import find_weights

from ..helpers import DATA, TINY, assert_equal, image, load_config, official_shapes, relative_error, tiny

SIZES = ['small', 'base', 'large']


def shapes(size: str) -> dict[str, Tensor]:
    """A state dict with the keys and shapes of a published checkpoint."""
    return {key: torch.empty(shape, device='meta') for key, shape in official_shapes(size).items()}


@pytest.fixture
def published() -> dict[str, Tensor]:
    """The published weights of a golden case."""
    return torch.load(DATA / 'divisible.pt', weights_only=True)['state_dict']


class TestFindWeights:
    weights = {'a.weight': torch.ones(2), 'b': torch.zeros(1)}  # noqa: RUF012

    @pytest.mark.parametrize('key', ['state_dict', 'model', 'model_ema', 'state_dict_ema'])
    def test_under_every_usual_name(self, key):
        found, where = find_weights({'epoch': 3, key: self.weights, 'optimizer': {'state': {}}})
        assert_equal(found, self.weights)
        assert where == f'under {key!r}'

    def test_the_content_itself(self):
        found, where = find_weights(self.weights)
        assert_equal(found, self.weights)
        assert where == 'the file itself'

    def test_of_a_published_training_the_weights_that_the_release_evaluates(self):
        content = {'model_ema': {'a': torch.zeros(1)}, 'model': {'a': torch.ones(1)}}
        found, where = find_weights(content)
        assert found['a'] == 1
        assert where == "under 'model' (not used: 'model_ema')"
        found, where = find_weights(content, key='model_ema')
        assert found['a'] == 0
        assert where == "under 'model_ema'"

    def test_of_mmengines_training_the_average_and_the_report_says_so(self):
        found, where = find_weights({'state_dict': {'a': torch.ones(1)}, 'ema_state_dict': {'a': torch.zeros(1)}})
        assert found['a'] == 1
        assert 'averaged, as MMEngine' in where

    @pytest.mark.parametrize('prefix', ['module.', 'module.module.', '_orig_mod.', 'module._orig_mod.'])
    def test_prefixes_of_all_keys_are_taken_away(self, prefix):
        found, _ = find_weights({'model': {f'{prefix}{key}': value for key, value in self.weights.items()}})
        assert_equal(found, self.weights)

    def test_a_prefix_of_some_keys_is_a_part_of_the_name(self):
        weights = {'module.a': torch.ones(1), 'b': torch.ones(1)}
        assert_equal(find_weights(weights)[0], weights)

    @pytest.mark.parametrize('average', [ExponentialMovingAverage, AveragedModel])
    def test_averaged_models(self, average):
        model = nn.Linear(2, 3)
        found, _ = find_weights(average(model).state_dict())
        assert_equal(found, model.state_dict())

    def test_a_counter_alone_or_beside_other_keys_is_a_weight(self):
        for weights in ({'steps': torch.ones(1)}, {'steps': torch.ones(1), 'a': torch.ones(1)}):
            assert_equal(find_weights(weights)[0], weights)

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            ([1], 'the file holds a list'),
            (None, 'the file holds a NoneType'),
            (torch.ones(1), 'the file holds a Tensor'),
            ({}, 'the file itself there is an empty dict'),
            ({'model': {}}, "under 'model' there is an empty dict"),
            (
                {'epoch': 3, 'lr': 0.1},
                "in the file itself there is a dict with 'epoch', 'lr', and 'epoch' is of type int",
            ),
            ({'state_dict': torch.ones(1), 'epoch': 1}, "'epoch' is of type int"),
            ({'model': {'a': torch.ones(1), 'b': 'text'}}, "under 'model' there is .*'b' is of type str"),
            (dict.fromkeys('abcdefg', 1), "'a', 'b', 'c', 'd', 'e', …"),
        ],
    )
    def test_what_holds_no_weights_is_described(self, content, message):
        with pytest.raises(CheckpointError, match=message):
            find_weights(content)

    @pytest.mark.parametrize(('key', 'message'), [('ema', "nothing under 'ema'.*'model'"), ('epoch', "'epoch' .* int")])
    def test_a_key_that_has_no_weights(self, key, message):
        with pytest.raises(CheckpointError, match=message):
            find_weights({'model': self.weights, 'epoch': 3}, key=key)

    def test_a_dict_that_contains_itself_is_refused(self):
        content = {}
        content['model'] = content
        with pytest.raises(CheckpointError, match="'model' is of type dict"):
            find_weights(content)


class TestRecogniseArch:
    @pytest.mark.parametrize('size', SIZES)
    def test_published_ours_and_with_other_prefixes(self, size):
        published = shapes(size)
        ours = convert_official(published)
        bare, _ = backbone_weights(ours)
        detector = {f'detector.{key}': value for key, value in ours.items()}
        assert [recognise_arch(weights) for weights in (published, ours, bare, detector)] == [size] * 4

    @pytest.mark.parametrize('arch', list(ARCHS))
    def test_every_arch_that_has_a_name(self, arch):
        with torch.device('meta'):
            model = STViT(arch)
        assert recognise_arch(model.state_dict()) == arch

    def test_the_inference_form(self):
        assert recognise_arch(STViT('nano', deploy=True).state_dict()) == 'nano'

    def test_the_first_stages_are_enough_where_they_differ(self):
        with torch.device('meta'):
            assert recognise_arch(STViT('large', out_indices=(1,)).state_dict()) == 'large'
            # base and large begin alike
            assert recognise_arch(STViT('large', out_indices=(0,)).state_dict()) == 'channels 96 and depths 4'

    def test_another_architecture_is_described(self):
        assert measure(tiny().state_dict()) == Size(TINY['channels'], TINY['depths'])
        assert recognise_arch(tiny().state_dict()) == 'channels 8, 12, 16, 24 and depths 1, 1, 2, 1'

    def test_other_models_are_not_stvit(self):
        registry = pytest.importorskip('mmpretrain.registry')
        swin = dict(type='SwinTransformer', arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4))
        convnext = dict(type='ConvNeXt', arch=dict(channels=[8] * 4, depths=[1] * 4))
        for config in (swin, convnext, dict(type='ResNet', depth=18)):
            model = registry.MODELS.build(dict(config, _scope_='mmpretrain'))
            assert recognise_arch(model.state_dict()) is None

    def test_without_its_first_stage_it_is_none(self):
        weights = {key: value for key, value in tiny().state_dict().items() if not key.startswith('stages.0.')}
        assert recognise_arch(weights) is None

    def test_of_two_the_first(self):
        with torch.device('meta'):
            teacher, student = STViT('small').state_dict(), STViT('nano').state_dict()
        weights = {f'teacher.{key}': value for key, value in teacher.items()}
        weights |= {f'student.{key}': value for key, value in student.items()}
        assert recognise_arch(weights) == 'small'


class TestBackboneWeights:
    @pytest.mark.parametrize('prefix', [None, 'backbone.'])
    def test_of_a_published_file(self, published, prefix):
        kept, dropped = backbone_weights(published, prefix)
        expected = convert_official(published)
        assert_equal({f'backbone.{key}': value for key, value in kept.items()}, without_tail(expected))
        tail = [key for key in published if key.split('.')[0] in ('proj', 'norm', 'head')]
        constants = [key for key in published if 'fold.weights' in key]
        assert sorted(dropped) == sorted(tail + constants)

    def test_of_a_published_backbone_alone(self, published):
        tail = ('proj.', 'norm.', 'head.')
        alone = {key: value for key, value in published.items() if not key.startswith(tail)}
        assert_equal(backbone_weights(alone)[0], backbone_weights(published)[0])

    @pytest.mark.parametrize('before', ['', 'backbone.', 'detector.backbone.'])
    def test_of_ours_with_any_prefix(self, before):
        weights = tiny().state_dict()
        beside = {f'{before}x'.replace('backbone.', 'neck.'): torch.ones(1)} if before else {}
        kept, dropped = backbone_weights({f'{before}{key}': value for key, value in weights.items()} | beside)
        assert_equal(kept, weights)
        assert dropped == list(beside)

    @pytest.mark.parametrize(
        ('name', 'parts'),
        [
            ('imagenet/stvit-nano_scenes', {'neck', 'head'}),
            ('mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes', {'neck', 'rpn_head', 'roi_head'}),
            ('upernet/stvit-nano_upernet_scenes', {'decode_head', 'auxiliary_head'}),
        ],
        ids=['classifier', 'detector', 'segmentor'],
    )
    def test_of_whole_models_strictly_into_a_bare_backbone(self, name, parts):
        from mmstvit.apis import build_model

        with torch.device('meta'):
            model = build_model(load_config(name))
            backbone = STViT('nano')
        kept, dropped = backbone_weights(model.state_dict())
        backbone.load_state_dict(kept, strict=True, assign=True)
        assert {key.split('.')[0] for key in dropped} == parts

    def test_of_several_one_has_to_be_named(self):
        weights = {f'{who}.{key}': value for who in ('a', 'b') for key, value in tiny().state_dict().items()}
        with pytest.raises(CheckpointError, match=re.escape("['a.', 'b.']")):
            backbone_weights(weights)
        kept, dropped = backbone_weights(weights, prefix='b.')
        assert_equal(kept, tiny().state_dict())
        assert len(dropped) == len(kept)

    def test_a_prefix_that_nothing_has(self):
        with pytest.raises(CheckpointError, match=r"prefix 'backbone\.'; that of the backbone in them is none"):
            backbone_weights(tiny().state_dict(), prefix='backbone.')

    def test_another_model(self):
        with pytest.raises(CheckpointError, match=r"no STViT in these weights.*'layer1\.weight'"):
            backbone_weights({'layer1.weight': torch.ones(1)})


def without_tail(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in weights.items() if key.startswith('backbone.')}


class TestAdaptStem:
    key = 'patch_embed.convs.0.weight'

    def features(self, weights: dict[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        model = STViT(TINY, in_channels=x.shape[1]).eval()
        model.load_state_dict(weights)
        with torch.no_grad():
            return model(x)

    def test_gray_equals_the_gray_image_in_red_green_and_blue(self):
        weights, gray = tiny().state_dict(), image(2, 1, 40, 56)
        actual = self.features(adapt_stem(weights, 1), gray)
        expected = self.features(weights, gray.expand(-1, 3, -1, -1))
        assert max(relative_error(a, b) for a, b in zip(actual, expected, strict=True)) <= 1e-5

    @pytest.mark.parametrize('channels', [4, 7])
    def test_further_channels_do_not_matter_at_the_start(self, channels):
        weights, x = tiny().state_dict(), image(1, channels, 40, 56)
        actual, expected = self.features(adapt_stem(weights, channels), x), self.features(weights, x[:, :3])
        assert max(relative_error(a, b) for a, b in zip(actual, expected, strict=True)) <= 1e-5

    def test_further_channels_can_learn(self):
        model = STViT(TINY, in_channels=4)
        model.load_state_dict(adapt_stem(tiny().state_dict(), 4))
        model(image(2, 4, 32, 32))[-1].square().sum().backward()
        assert model.patch_embed.convs[0].weight.grad[:, 3].abs().max() > 0

    def test_published_and_prefixed_weights_alike(self, published):
        ours = convert_official(published)
        adapted = adapt_stem(published, 1)
        assert adapted['patch_embed.proj.0.weight'].shape[1] == 1
        assert_equal(convert_official(adapted), adapt_stem(ours, 1))

    def test_all_other_tensors_are_shared_and_the_input_stays(self):
        weights = tiny().state_dict()
        adapted = adapt_stem(weights, 4)
        assert weights[self.key].shape[1] == 3
        assert {key for key in weights if adapted[key] is not weights[key]} == {self.key}

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
    def test_types_stay(self, dtype):
        kernel = {self.key: image(4, 3, 3, 3, dtype=dtype)}
        for channels in (1, 4):
            adapted = adapt_stem(kernel, channels)[self.key]
            assert adapted.dtype == dtype and adapted.shape == (4, channels, 3, 3)
        x = F.conv2d(image(1, 1, 5, 5).double(), adapt_stem(kernel, 1)[self.key].double())
        assert x.isfinite().all()

    @pytest.mark.parametrize('channels', [1, 4, 3])
    def test_a_stem_that_fits_already_is_not_changed(self, channels):
        weights = tiny(in_channels=channels).state_dict()
        assert_equal(adapt_stem(weights, channels), weights)

    @pytest.mark.parametrize('channels', [2, 0, -1])
    def test_channels_that_have_no_meaning(self, channels):
        with pytest.raises(CheckpointError, match=f'to 1 channel or to more than 3, not to {channels}'):
            adapt_stem(tiny().state_dict(), channels)

    def test_only_from_three(self):
        with pytest.raises(CheckpointError, match=r'convs\.0\.weight is for 4 '):
            adapt_stem(tiny(in_channels=4).state_dict(), 1)

    def test_without_a_stem(self):
        with pytest.raises(CheckpointError, match='no stem'):
            adapt_stem({'a': torch.ones(1)}, 1)
