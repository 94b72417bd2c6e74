"""The backbone: sizes, shapes, memory layout, precision, gradients, state."""

import copy
import math
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from mmstvit import STViT
from mmstvit.arch import ARCHS

from ..helpers import TINY, assert_equal, cotangent_loss, image, not_learning, relative_error, tiny


@pytest.mark.parametrize(('height', 'width'), [(32, 32), (64, 96), (33, 97), (63, 65), (333, 40)])
@pytest.mark.parametrize('batch', [1, 2])
def test_maps_have_strides_4_to_32(batch, height, width):
    with torch.no_grad():
        outputs = tiny().eval()(image(batch, 3, height, width))
    expected = []
    for i, channels in enumerate(TINY['channels']):
        stride = 2 ** (i + 2)
        expected.append((batch, channels, math.ceil(height / stride), math.ceil(width / stride)))
    assert isinstance(outputs, tuple)
    assert [tuple(x.shape) for x in outputs] == expected
    assert all(x.isfinite().all() for x in outputs)


def test_empty_batch_gives_empty_maps():
    outputs = tiny().eval()(torch.empty(0, 3, 64, 64))
    assert [x.shape[0] for x in outputs] == [0] * 4


@pytest.mark.parametrize('deploy', [False, True])
def test_builds_without_memory(deploy):
    """On the meta device and with fake tensors, as tools for sharding and for counting do."""
    with torch.device('meta'):
        model = STViT('nano', drop_path_rate=0.2, deploy=deploy)
    assert {p.device.type for p in model.parameters()} == {'meta'}
    with FakeTensorMode():
        model = STViT('nano', drop_path_rate=0.2, deploy=deploy)
        if not deploy:
            assert model.eval()(torch.empty(2, 3, 65, 64))[-1].shape == (2, 192, 3, 2)


def test_trace_is_for_all_sizes():
    """A traced backbone computes images of other sizes and batches: no size became a constant of the program."""
    model = tiny().eval()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter('ignore')  # torch.jit is deprecated, but the exporter to ONNX builds on it
        traced = torch.jit.trace(model, image(1, 3, 64, 64), check_trace=False)
        for size in [(1, 3, 64, 64), (2, 3, 45, 70), (3, 3, 97, 33)]:
            for actual, expected in zip(traced(image(*size)), model(image(*size)), strict=True):
                assert relative_error(actual, expected) <= 1e-5


def test_images_of_a_batch_do_not_meet():
    model = tiny().eval().double()
    x = image(2, 3, 50, 70, dtype=torch.float64)
    with torch.no_grad():
        together, alone = model(x), model(x[1:])
    for a, b in zip(together, alone, strict=True):
        assert relative_error(a[1:], b) <= 1e-12


LAYOUTS = {
    'contiguous': lambda x: x.clone(),
    'channels_last': lambda x: x.clone(memory_format=torch.channels_last),
    'transposed': lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    'expanded batch': lambda x: x[:1].expand(2, -1, -1, -1),
}


class TestMemoryLayout:
    @pytest.mark.parametrize('layout', LAYOUTS)
    @pytest.mark.parametrize('training', [False, True])
    def test_outputs_are_contiguous_and_do_not_depend_on_the_layout(self, layout, training):
        x = image(1, 3, 45, 70).repeat(2, 1, 1, 1)
        outputs, expected = (tiny().train(training)(view) for view in (LAYOUTS[layout](x), x))
        for a, b in zip(outputs, expected, strict=True):
            assert a.is_contiguous()
            assert torch.equal(a, b)

    def test_model_in_channels_last_returns_contiguous_maps(self):
        model = tiny().eval()
        x = image(2, 3, 64, 64)
        expected = model(x)
        outputs = model.to(memory_format=torch.channels_last)(x)
        for a, b in zip(outputs, expected, strict=True):
            assert a.is_contiguous()
            assert relative_error(a, b) <= 1e-5


@pytest.mark.parametrize('arch', ARCHS)
def test_every_parameter_learns(arch):
    torch.manual_seed(0)
    model = STViT(arch).eval()
    cotangent_loss(model(image(1, 3, 64, 64))).backward()
    assert not_learning(model) == []


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['copy', 'pickle'])
def test_duplicates_are_equal_and_independent(duplicate):
    model, x = tiny(n_iter=2, drop_path_rate=0.3).eval(), image(1, 3, 64, 64)
    other = duplicate(model)
    assert_equal(other.state_dict(), model.state_dict())
    with torch.no_grad():
        for a, b in zip(other(x), model(x), strict=True):
            assert torch.equal(a, b)
        other.patch_embed.convs[0].weight.zero_()
    assert model.patch_embed.convs[0].weight.abs().max() > 0


class TestInitialization:
    @pytest.mark.parametrize('arch', ['base', 'large'])
    def test_layer_scale_starts_at_1e_6_in_the_last_two_stages(self, arch):
        torch.manual_seed(0)
        gammas = {n: p for n, p in STViT(arch).named_parameters() if 'gamma' in n}
        expected = {f'stages.{i}.{j}.gamma{k}' for i in (2, 3) for j in range(ARCHS[arch].depths[i]) for k in (1, 2)}
        assert set(gammas) == expected
        assert all((p == 1e-6).all() for p in gammas.values())

    def test_norms_start_at_identity_with_the_epsilons_of_the_official_implementation(self):
        modules = list(STViT('nano').modules())
        layer_norms = [m for m in modules if isinstance(m, nn.LayerNorm)]
        norms = [m for m in modules if isinstance(m, nn.BatchNorm2d)]
        assert {m.eps for m in layer_norms} == {1e-6}
        assert {(m.eps, m.momentum) for m in norms} == {(1e-5, 0.1)}
        for m in layer_norms + norms:
            assert (m.weight == 1).all() and (m.bias == 0).all()

    def test_linears_and_convolutions_keep_pytorchs_default(self):
        torch.manual_seed(0)
        layers = {n: m for n, m in STViT('nano').named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
        names = {n.split('.')[-1] for n in layers if 'stages.0' in n}
        assert names == {'pos_embed', 'qkv', 'proj', 'fc1', 'dwconv', 'fc2'}
        for name, layer in layers.items():
            bound = layer.weight[0].numel() ** -0.5
            for values in (layer.weight, layer.bias):
                assert 0.8 * bound < values.abs().max() <= bound, name

    def test_init_cfg_is_applied_by_init_weights(self):
        model = STViT(TINY, init_cfg={'type': 'Constant', 'layer': 'Linear', 'val': 0.25})
        model.init_weights()
        assert (model.stages[0][0].attn.qkv.weight == 0.25).all()
        assert not (model.patch_embed.convs[0].weight == 0.25).any()

    def test_init_weights_without_init_cfg_changes_nothing(self):
        model = tiny()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        model.init_weights()
        assert_equal(model.state_dict(), before)


def test_what_no_shape_of_a_published_checkpoint_shows():
    heads = {'small': (1, 2, 5, 8), 'base': (2, 3, 6, 8), 'large': (2, 3, 7, 10)}
    assert {arch: ARCHS[arch].num_heads for arch in heads} == heads
    assert {ARCHS[arch].stoken_size for arch in heads} == {(8, 4, 1, 1)}


def test_layer_depth_of_other_parts_is_the_last_also_of_fewer_stages():
    """Those of the backbone are in the tests of the layer decay."""
    assert tiny(out_indices=(1,)).get_layer_depth('neck.conv.weight', prefix='backbone.') == (3, 4)
