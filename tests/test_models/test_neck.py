"""The tail of the classifier; ``test_golden.py`` has its values and gradients, in training too."""

import pytest
import torch

from mmstvit import STViTNeck

from ..helpers import image


def test_takes_the_last_map_of_a_tuple():
    x = image(2, 6, 4, 4)
    neck = STViTNeck(6, 10)
    (alone,), (last,) = neck(x), neck((image(2, 3, 8, 8), x))
    assert torch.equal(alone, last)


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
        STViTNeck(6, 10)(value)
