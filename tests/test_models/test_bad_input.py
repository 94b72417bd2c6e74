"""Bad values are refused where they enter, with the value and what to do; good spellings are not."""

import math

import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmstvit import STViT
from mmstvit.arch import ARCHS, resolve_arch

from ..helpers import TINY, tiny


def changed(**fields: object) -> dict:
    return {'arch': {**TINY, **fields}}


def lacking(*names: str) -> dict:
    return {'arch': {key: value for key, value in TINY.items() if key not in names}}


def refusal(error: type[Exception], **kwargs: object) -> str:
    """The message with which a model of these arguments is refused."""
    with pytest.raises(error) as caught:
        STViT(**{'arch': TINY, **kwargs})
    return str(caught.value)


class TestArchName:
    @pytest.mark.parametrize(
        ('name', 'nearest'),
        [('smal', 'small'), ('Small', 'small'), ('bas', 'base'), ('LARGE', 'large'), ('nanno', 'nano')],
    )
    def test_unknown_name_suggests_the_nearest(self, name, nearest):
        message = refusal(ValueError, arch=name)
        assert repr(name) in message
        assert f'Did you mean {nearest!r}?' in message

    @pytest.mark.parametrize('name', ['', 'resnet50', 'stvit'])
    def test_unknown_name_lists_the_known_ones(self, name):
        message = refusal(ValueError, arch=name)
        assert repr(name) in message
        assert all(repr(known) in message for known in ARCHS)
        assert 'or pass a dict' in message

    @pytest.mark.parametrize('arch', [None, 3, ['small'], ('channels', 'depths')])
    def test_neither_name_nor_dict_is_refused(self, arch):
        message = refusal(TypeError, arch=arch)
        assert repr(arch) in message and type(arch).__name__ in message and 'dict' in message


class TestArchDict:
    @pytest.mark.parametrize('key', ['channels', 'depths', 'num_heads'])
    def test_missing_key_is_named(self, key):
        assert f"missing: ['{key}']" in refusal(ValueError, **lacking(key))

    @pytest.mark.parametrize(
        ('key', 'nearest'),
        [('depth', 'depths'), ('heads', 'num_heads'), ('stoken_sizes', 'stoken_size'), ('mlp', 'mlp_ratio')],
    )
    def test_unknown_key_is_named_with_a_hint(self, key, nearest):
        message = refusal(ValueError, **changed(**{key: (1, 1, 1, 1)}))
        assert f"unknown: ['{key}']" in message
        assert f'Did you mean {nearest!r}?' in message

    def test_misspelt_required_key_is_both_missing_and_unknown(self):
        arch = {**lacking('depths')['arch'], 'depht': (1, 1, 1, 1)}
        message = refusal(ValueError, arch=arch)
        assert "missing: ['depths']" in message and "unknown: ['depht']" in message and "mean 'depths'" in message

    def test_key_that_resembles_nothing_is_listed_with_the_known_ones(self):
        message = refusal(ValueError, **changed(xyz=1))
        assert "unknown: ['xyz']" in message and 'layer_scale_init_value' in message
        assert 'Did you mean' not in message

    @pytest.mark.parametrize('key', ['channels', 'depths', 'num_heads', 'stoken_size', 'layer_scale_init_value'])
    @pytest.mark.parametrize('value', [(), (1, 1, 1), (1, 1, 1, 1, 1), 4, '1111', b'1111', None, {1, 2, 3, 4}])
    def test_entry_must_be_a_sequence_of_four(self, key, value):
        message = refusal(ValueError, **changed(**{key: value}))
        assert f"arch['{key}'] must be a sequence of 4 numbers, one per stage" in message
        assert repr(value) in message

    @pytest.mark.parametrize('key', ['channels', 'depths', 'num_heads', 'stoken_size'])
    @pytest.mark.parametrize('value', [0, -1, 1.0, 1.5, True, '1', None, math.nan])
    def test_entry_must_hold_positive_integers(self, key, value):
        message = refusal(ValueError, **changed(**{key: (2, 2, value, 2)}))
        assert f"arch['{key}'][2] must be an integer of at least 1, but got {value!r}" in message

    @pytest.mark.parametrize('value', [-1e-6, math.nan, math.inf, True, '0', None])
    def test_layer_scale_must_not_be_negative(self, value):
        message = refusal(ValueError, **changed(layer_scale_init_value=(0, 0, 0, value)))
        assert f"arch['layer_scale_init_value'][3] must be a number of at least 0, but got {value!r}" in message

    @pytest.mark.parametrize('value', [0, -4, 0.01, math.nan, math.inf, True, '4', None, (4, 4, 4, 4)])
    def test_mlp_ratio_must_leave_a_hidden_channel(self, value):
        message = refusal(ValueError, **changed(mlp_ratio=value))
        assert (
            f"arch['mlp_ratio'] must be a number that leaves every FFN a hidden channel, but got {value!r}" in message
        )

    def test_heads_must_divide_channels(self):
        message = refusal(ValueError, **changed(num_heads=(1, 2, 3, 3)))
        assert "arch['num_heads'][2] = 3 does not divide arch['channels'][2] = 16" in message

    def test_first_channels_must_be_even(self):
        message = refusal(ValueError, **changed(channels=(9, 12, 16, 24)))
        assert "arch['channels'][0] must be even" in message and '9' in message


class TestArguments:
    @pytest.mark.parametrize('value', [0, -3, 3.0, True, '3', None, (3,)])
    def test_in_channels_must_be_a_positive_integer(self, value):
        assert f'in_channels must be a positive integer, but got {value!r}' in refusal(ValueError, in_channels=value)

    @pytest.mark.parametrize(
        'value',
        [4, -5, (0, 4), (), [], (3, 3), (3, -1), (2, 1), (0, 1.0), 1.0, '3', '0123', None, {0, 1}, (None,)],
    )
    def test_out_indices_must_name_stages_in_order(self, value):
        message = refusal(ValueError, out_indices=value)
        assert 'out_indices must name stages 0 to 3' in message and 'in increasing order' in message
        assert f'but got {value!r}' in message

    @pytest.mark.parametrize(
        ('value', 'shown'), [(0, '0'), (-1, '-1'), (True, 'True'), ((1, 1, 0, 1), '0'), ([1, 1, 1.0, 1], '1.0')]
    )
    def test_n_iter_must_be_positive(self, value, shown):
        message = refusal(ValueError, n_iter=value)
        assert 'n_iter[' in message and f'must be an integer of at least 1, but got {shown}' in message

    @pytest.mark.parametrize('value', [8, (8, 4), '8421', (8, 4, 0, 1), (8, 4, 1.0, 1), (8, 4, True, 1)])
    def test_stoken_size_must_be_four_positive_integers(self, value):
        message = refusal(ValueError, stoken_size=value)
        assert message.startswith('stoken_size') and repr(value) in message

    @pytest.mark.parametrize('value', [(1, 1, 1), (), '1', None, 1.0])
    def test_n_iter_must_be_one_or_four_numbers(self, value):
        message = refusal(ValueError, n_iter=value)
        assert f'n_iter must be a sequence of 4 numbers, one per stage, but got {value!r}' in message

    @pytest.mark.parametrize('rate', ['drop_rate', 'attn_drop_rate', 'drop_path_rate'])
    @pytest.mark.parametrize('value', [-0.1, 1, 1.0, 20, math.nan, math.inf, True, False, '0.1', None, (0, 0.1)])
    def test_rates_must_be_in_the_unit_interval(self, rate, value):
        assert f'{rate} must be a number in [0, 1), but got {value!r}' in refusal(ValueError, **{rate: value})

    @pytest.mark.parametrize('value', [-2, 5, 0.5, 1.0, True, '1', None, [1]])
    def test_frozen_stages_must_be_a_stage(self, value):
        message = refusal(ValueError, frozen_stages=value)
        assert 'frozen_stages must be -1 (nothing), 0 (the stem) or up to 4' in message
        assert f'but got {value!r}' in message

    @pytest.mark.parametrize('flag', ['norm_eval', 'with_cp'])
    @pytest.mark.parametrize('value', ['no', None, 1])
    def test_flags_must_be_true_or_false(self, flag, value):
        assert f'{flag} must be True or False, but got {value!r}' in refusal(ValueError, **{flag: value})

    @pytest.mark.parametrize('value', [True, (False, True)])
    def test_out_indices_are_not_flags(self, value):
        assert f'but got {value!r}' in refusal(ValueError, out_indices=value)

    def test_frozen_stages_must_have_been_built(self):
        message = refusal(ValueError, frozen_stages=3, out_indices=(0, 1))
        assert 'up to 2' in message and 'out_indices=(0, 1)' in message and 'but got 3' in message

    @pytest.mark.parametrize('name', ['drop_path', 'depth', 'pretrained', 'use_checkpoint'])
    def test_misspelt_option_is_refused(self, name):
        assert f'unexpected keyword argument {name!r}' in refusal(TypeError, **{name: 1})


class TestInput:
    @pytest.mark.parametrize('shape', [(3, 64, 64), (64, 64), (1, 1, 3, 64, 64), ()])
    def test_must_be_four_dimensional(self, shape):
        with pytest.raises(ValueError, match=r'batch of images \(B, 3, H, W\)') as caught:
            tiny()(torch.zeros(shape))
        assert str(shape) in str(caught.value) and 'x[None]' in str(caught.value)

    @pytest.mark.parametrize('shape', [(1, 1, 64, 64), (1, 4, 64, 64), (2, 64, 64, 3)])
    def test_must_have_the_models_channels(self, shape):
        with pytest.raises(ValueError, match='in_channels=3') as caught:
            tiny()(torch.zeros(shape))
        assert str(shape) in str(caught.value) and f'with {shape[1]} channels' in str(caught.value)

    @pytest.mark.parametrize(('height', 'width'), [(31, 64), (64, 31), (1, 1), (0, 64)])
    def test_must_be_32_pixels_or_more(self, height, width):
        with pytest.raises(ValueError, match='at least 32×32') as caught:
            tiny()(torch.zeros(1, 3, height, width))
        assert f'{height}×{width}' in str(caught.value) and 'Resize or pad' in str(caught.value)


class TestGoodSpellings:
    @pytest.mark.parametrize(
        'convert',
        [
            dict,
            ConfigDict,
            lambda arch: Config({'arch': arch}).arch,
            lambda arch: {key: list(value) for key, value in arch.items()},
        ],
        ids=['dict', 'ConfigDict', 'Config', 'lists'],
    )
    def test_arch_may_be_any_mapping_of_any_sequences(self, convert):
        assert resolve_arch(convert(TINY)) == resolve_arch(TINY)

    def test_optional_keys_have_the_papers_defaults(self):
        arch = resolve_arch(lacking('stoken_size', 'layer_scale_init_value')['arch'])
        assert (arch.stoken_size, arch.layer_scale_init_value, arch.mlp_ratio) == ((8, 4, 1, 1), (0, 0, 0, 0), 4)

    def test_arch_dict_is_not_changed(self):
        arch = {**TINY, 'mlp_ratio': 3}
        before = dict(arch)
        resolve_arch(arch)
        assert arch == before

    @pytest.mark.parametrize('rate', [0, 0.0, 0.999])
    def test_limits_of_the_rates_are_allowed(self, rate):
        assert STViT(TINY, drop_rate=rate, attn_drop_rate=rate, drop_path_rate=rate).train()

    def test_smallest_image_is_allowed(self):
        assert tiny().eval()(torch.zeros(1, 3, 32, 32))[-1].shape[2:] == (1, 1)

    @pytest.mark.parametrize(
        ('value', 'remedy'),
        [
            (None, 'torch.as_tensor'),
            ([1, 2], 'torch.as_tensor'),
            (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), 'Normalize'),
        ],
    )
    def test_anything_but_a_floating_point_tensor_is_refused(self, value, remedy):
        with pytest.raises(TypeError, match='STViT needs') as caught:
            tiny()(value)
        assert remedy in str(caught.value)
