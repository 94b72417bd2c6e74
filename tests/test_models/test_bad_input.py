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
    """Return the message with which a model of these arguments is refused."""
    with pytest.raises(error) as caught:
        STViT(**{'arch': TINY, **kwargs})
    return str(caught.value)


class TestArch:
    @pytest.mark.parametrize(('name', 'nearest'), [('smal', 'small'), ('LARGE', 'large')])
    def test_unknown_name_suggests_the_nearest(self, name, nearest):
        message = refusal(ValueError, arch=name)
        assert repr(name) in message and f'Did you mean {nearest!r}?' in message

    def test_unknown_name_lists_the_known_ones(self):
        message = refusal(ValueError, arch='resnet50')
        assert all(repr(known) in message for known in ARCHS) and 'or pass a dict' in message

    @pytest.mark.parametrize('arch', [None, ['small']])
    def test_neither_name_nor_dict_is_refused(self, arch):
        message = refusal(TypeError, arch=arch)
        assert repr(arch) in message and type(arch).__name__ in message and 'dict' in message

    def test_misspelled_required_key_is_both_missing_and_unknown(self):
        arch = {**lacking('depths')['arch'], 'depht': (1, 1, 1, 1)}
        message = refusal(ValueError, arch=arch)
        assert "missing: ['depths']" in message and "unknown: ['depht']" in message and "mean 'depths'" in message

    def test_key_that_resembles_nothing_is_listed_with_the_known_ones(self):
        message = refusal(ValueError, **changed(xyz=1))
        assert "unknown: ['xyz']" in message and 'layer_scale_init_value' in message
        assert 'Did you mean' not in message

    @pytest.mark.parametrize('key', ['channels', 'depths', 'num_heads', 'stoken_size', 'layer_scale_init_value'])
    @pytest.mark.parametrize('value', [(1, 1, 1), (1, 1, 1, 1, 1), 4, '1111', {1, 2, 3, 4}])
    def test_entry_must_be_a_sequence_of_four(self, key, value):
        message = refusal(ValueError, **changed(**{key: value}))
        assert f"arch['{key}'] must be a sequence of 4 numbers" in message and repr(value) in message

    @pytest.mark.parametrize(('key', 'value'), [
        *((key, 0) for key in ('channels', 'depths', 'num_heads', 'stoken_size')),
        ('depths', 1.0), ('depths', True), ('depths', '1'),
        ('layer_scale_init_value', -1e-6), ('layer_scale_init_value', math.nan), ('layer_scale_init_value', True),
    ])  # fmt: skip
    def test_number_of_a_stage(self, key, value):
        message = refusal(ValueError, **changed(**{key: (2, 2, value, 2)}))
        assert f"arch['{key}'][2] must be" in message and f'but got {value!r}' in message

    @pytest.mark.parametrize('value', [0, 0.01, math.inf, True, (4, 4, 4, 4)])
    def test_mlp_ratio_must_leave_a_hidden_channel(self, value):
        message = refusal(ValueError, **changed(mlp_ratio=value))
        assert "arch['mlp_ratio']" in message and 'hidden channel' in message and f'but got {value!r}' in message

    def test_heads_must_divide_channels(self):
        message = refusal(ValueError, **changed(num_heads=(1, 2, 3, 3)))
        assert "arch['num_heads'][2] = 3 does not divide arch['channels'][2] = 16" in message

    def test_first_channels_must_be_even(self):
        message = refusal(ValueError, **changed(channels=(9, 12, 16, 24)))
        assert "arch['channels'][0] must be even" in message and '9' in message


BAD_ARGUMENTS = {
    'in_channels': [0, 3.0, True],
    'out_indices': [4, -5, (), (3, 3), (3, -1), (0, 1.0), '3', None, True, (False, True)],
    'n_iter': [0, True, (1, 1, 0, 1), (1, 1, 1.0, 1), (1, 1, 1), None],
    'stoken_size': [8, (8, 4), '8421', (8, 4, 0, 1), (8, 4, True, 1)],
    'drop_rate': [-0.1, 1, math.nan, '0.1', False],
    'attn_drop_rate': [1],
    'drop_path_rate': [1],
    'frozen_stages': [-2, 5, 1.0, True, None],
    'norm_eval': ['no', None, 1],
    'with_cp': [1],
}


@pytest.mark.parametrize(
    ('name', 'value'), [(name, value) for name, values in BAD_ARGUMENTS.items() for value in values]
)
def test_argument_is_refused(name, value):
    message = refusal(ValueError, **{name: value})
    assert message.startswith(name) and ' must ' in message
    # Of a sequence, the entry is shown.
    assert f'but got {value!r}' in message or any(f'but got {v!r}' in message for v in value)


def test_frozen_stages_must_have_been_built():
    message = refusal(ValueError, frozen_stages=3, out_indices=(0, 1))
    assert 'up to 2' in message and 'out_indices=(0, 1)' in message and 'but got 3' in message


def test_unknown_argument_is_refused():
    assert "unexpected keyword argument 'pretrained'" in refusal(TypeError, pretrained='a.pth')


class TestInput:
    @pytest.mark.parametrize('shape', [(3, 64, 64), (1, 1, 3, 64, 64), ()])
    def test_must_be_four_dimensional(self, shape):
        with pytest.raises(ValueError, match=r'batch of images \(B, 3, H, W\)') as caught:
            tiny()(torch.zeros(shape))
        assert str(shape) in str(caught.value) and 'x[None]' in str(caught.value)

    @pytest.mark.parametrize('shape', [(1, 4, 64, 64), (2, 64, 64, 3)])
    def test_must_have_the_models_channels(self, shape):
        with pytest.raises(ValueError, match='in_channels=3') as caught:
            tiny()(torch.zeros(shape))
        assert str(shape) in str(caught.value) and f'with {shape[1]} channels' in str(caught.value)

    @pytest.mark.parametrize(('height', 'width'), [(31, 64), (64, 31)])
    def test_must_be_32_pixels_or_more(self, height, width):
        with pytest.raises(ValueError, match='at least 32×32') as caught:
            tiny()(torch.zeros(1, 3, height, width))
        assert f'{height}×{width}' in str(caught.value) and 'Resize or pad' in str(caught.value)

    @pytest.mark.parametrize(
        ('value', 'remedy'), [([1, 2], 'torch.as_tensor'), (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), 'Normalize')]
    )
    def test_must_be_a_floating_point_tensor(self, value, remedy):
        with pytest.raises(TypeError, match='STViT needs') as caught:
            tiny()(value)
        assert remedy in str(caught.value)


class TestGoodSpellings:
    @pytest.mark.parametrize('convert', [
        ConfigDict,
        lambda arch: Config({'arch': arch}).arch,
        lambda arch: {key: list(value) for key, value in arch.items()},
    ], ids=['ConfigDict', 'Config', 'lists'])  # fmt: skip
    def test_arch_may_be_any_mapping_of_any_sequences(self, convert):
        assert resolve_arch(convert(TINY)) == resolve_arch(TINY)

    def test_optional_keys_have_the_papers_defaults(self):
        given = lacking('stoken_size', 'layer_scale_init_value')['arch']
        before = dict(given)
        arch = resolve_arch(given)
        assert (arch.stoken_size, arch.layer_scale_init_value, arch.mlp_ratio) == ((8, 4, 1, 1), (0, 0, 0, 0), 4)
        assert given == before

    @pytest.mark.parametrize('rate', [0, 0.999])
    def test_limits_of_the_rates_are_allowed(self, rate):
        assert STViT(TINY, drop_rate=rate, attn_drop_rate=rate, drop_path_rate=rate).train()
