"""The tail of the classifier."""

import pytest
import torch
import torch.nn.functional as F

from mmstvit import STViTNeck

from ..helpers import image, relative_error


def neck(training: bool = False) -> STViTNeck:
    torch.manual_seed(0)
    module = STViTNeck(6, 10).train(training)
    module.norm.running_mean.normal_()
    module.norm.running_var.uniform_(0.5, 2)
    module.norm.weight.data.normal_()
    return module


@pytest.mark.parametrize(('height', 'width'), [(1, 1), (7, 7), (5, 3)])
def test_is_convolution_norm_swish_and_mean(height, width):
    module, x = neck().double(), image(2, 6, height, width, dtype=torch.float64)
    y = torch.einsum('bchw,oc->bohw', x, module.conv.weight[:, :, 0, 0]) + module.conv.bias[:, None, None]
    scale = module.norm.weight / (module.norm.running_var + 1e-5).sqrt()
    y = (y - module.norm.running_mean[:, None, None]) * scale[:, None, None] + module.norm.bias[:, None, None]
    expected = (y * y.sigmoid()).sum((2, 3)) / (height * width)
    (actual,) = module(x)
    assert actual.shape == (2, 10)
    assert relative_error(actual, expected) <= 1e-12


def test_takes_the_last_map_of_a_tuple():
    x = image(2, 6, 4, 4)
    (alone,), (last,) = neck()(x), neck()((image(2, 3, 8, 8), x))
    assert torch.equal(alone, last)


def test_training_normalizes_by_the_batch():
    module, x = neck(training=True), image(4, 6, 5, 5)
    before = module.norm.running_mean.clone()
    (actual,) = module(x)
    y = F.batch_norm(module.conv(x), None, None, module.norm.weight, module.norm.bias, training=True)
    assert relative_error(actual, F.silu(y).mean((2, 3))) <= 1e-5
    assert not torch.equal(module.norm.running_mean, before)


def test_keeps_pytorchs_initialization():
    torch.manual_seed(0)
    module = STViTNeck(64)
    module.init_weights()
    assert 0.8 / 8 < module.conv.weight.abs().max() <= 1 / 8
    assert (module.norm.weight == 1).all() and (module.norm.bias == 0).all()


@pytest.mark.parametrize('value', [0, True, 64.0])
@pytest.mark.parametrize('name', ['in_channels', 'out_channels'])
def test_channels_must_be_positive_integers(name, value):
    with pytest.raises(ValueError, match=f'{name} must be a positive integer, but got {value!r}'):
        STViTNeck(**{'in_channels': 6, name: value})


@pytest.mark.parametrize('value', [(), None, torch.zeros(2, 5, 4, 4), (torch.zeros(2, 6, 4),)])
def test_what_is_not_the_last_map_is_refused(value):
    with pytest.raises(ValueError, match=r'STViTNeck needs a map \(B, 6, H, W\)'):
        neck()(value)
