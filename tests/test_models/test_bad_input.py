"""Bad values are refused where they enter, with the value and what to do; good spellings are not."""

import math

import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmstvit import STViT
from mmstvit.arch import ARCHS, resolve_arch

from ..helpers import TINY, tiny


def changed(**fields: object) -> dict:
    return {**TINY, **fields}


def lacking(*names: str) -> dict:
    return {key: value for key, value in TINY.items() if key not in names}


def refusal(error: type[Exception], **kwargs: object) -> str:
    """Return the message with which a model of these arguments is refused."""
    with pytest.raises(error) as caught:
        STViT(**{'arch': TINY, **kwargs})
    return str(caught.value)


MLP_RATIOS = [0, 0.01, math.inf, True, (4, 4, 4, 4)]


@pytest.mark.parametrize(
    ('arch', 'error', 'words'),
    [
        ('smal', ValueError, ["'smal'", "Did you mean 'small'?"]),
        ('LARGE', ValueError, ["'LARGE'", "Did you mean 'large'?"]),
        ('resnet50', ValueError, [*map(repr, ARCHS), 'or pass a dict']),
        (None, TypeError, ['None', 'NoneType', 'dict']),
        (['small'], TypeError, ["['small']", 'list', 'dict']),
        (
            {**lacking('depths'), 'depht': (1, 1, 1, 1)},
            ValueError,
            ["missing: ['depths']", "unknown: ['depht']", "mean 'depths'"],
        ),
        (changed(xyz=1), ValueError, ["unknown: ['xyz']", 'layer_scale_init_value']),
        (
            changed(num_heads=(1, 2, 3, 3)),
            ValueError,
            ["arch['num_heads'][2] = 3 does not divide arch['channels'][2] = 16"],
        ),
        (changed(channels=(9, 12, 16, 24)), ValueError, ["arch['channels'][0] must be even", '9']),
        *(
            (changed(mlp_ratio=value), ValueError, ["arch['mlp_ratio']", 'hidden channel', f'but got {value!r}'])
            for value in MLP_RATIOS
        ),
    ],
)
def test_arch_is_refused(arch, error, words):
    message = refusal(error, arch=arch)
    assert [word for word in words if word not in message] == [], message


@pytest.mark.parametrize('key', ['channels', 'depths', 'num_heads', 'stoken_size', 'layer_scale_init_value'])
@pytest.mark.parametrize('value', [(1, 1, 1), (1, 1, 1, 1, 1), 4, '1111', {1, 2, 3, 4}])
def test_an_entry_of_the_arch_must_be_a_sequence_of_four(key, value):
    message = refusal(ValueError, arch=changed(**{key: value}))
    assert f"arch['{key}'] must be a sequence of 4 numbers" in message and repr(value) in message


@pytest.mark.parametrize(('key', 'value'), [
    *((key, 0) for key in ('channels', 'depths', 'num_heads', 'stoken_size')),
    ('depths', 1.0), ('depths', True), ('depths', '1'),
    ('layer_scale_init_value', -1e-6), ('layer_scale_init_value', math.nan), ('layer_scale_init_value', True),
])  # fmt: skip
def test_number_of_a_stage(key, value):
    message = refusal(ValueError, arch=changed(**{key: (2, 2, value, 2)}))
    assert f"arch['{key}'][2] must be" in message and f'but got {value!r}' in message


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


@pytest.mark.parametrize(
    ('x', 'error', 'words'),
    [
        *(
            (torch.zeros(shape), ValueError, ['batch of images (B, 3, H, W)', str(shape), 'x[None]'])
            for shape in ((3, 64, 64), (1, 1, 3, 64, 64), ())
        ),
        *(
            (torch.zeros(shape), ValueError, ['in_channels=3', str(shape), f'with {shape[1]} channels'])
            for shape in ((1, 4, 64, 64), (2, 64, 64, 3))
        ),
        (torch.zeros(1, 3, 31, 64), ValueError, ['at least 32×32', '31×64', 'Resize or pad']),
        (torch.zeros(1, 3, 64, 31), ValueError, ['at least 32×32', '64×31', 'Resize or pad']),
        ([1, 2], TypeError, ['STViT needs', 'torch.as_tensor']),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, ['STViT needs', 'Normalize']),
    ],
    ids=lambda value: str(tuple(value.shape)) if isinstance(value, torch.Tensor) else None,
)
def test_input_is_refused(x, error, words):
    with pytest.raises(error) as caught:
        tiny()(x)
    assert [word for word in words if word not in str(caught.value)] == [], caught.value


class TestGoodSpellings:
    @pytest.mark.parametrize('convert', [
        ConfigDict,
        lambda arch: Config({'arch': arch}).arch,
        lambda arch: {key: list(value) for key, value in arch.items()},
    ], ids=['ConfigDict', 'Config', 'lists'])  # fmt: skip
    def test_arch_may_be_any_mapping_of_any_sequences(self, convert):
        assert resolve_arch(convert(TINY)) == resolve_arch(TINY)

    def test_optional_keys_have_the_papers_defaults(self):
        given = lacking('stoken_size', 'layer_scale_init_value')
        before = dict(given)
        arch = resolve_arch(given)
        assert (arch.stoken_size, arch.layer_scale_init_value, arch.mlp_ratio) == ((8, 4, 1, 1), (0, 0, 0, 0), 4)
        assert given == before

    @pytest.mark.parametrize('rate', [0, 0.999])
    def test_limits_of_the_rates_are_allowed(self, rate):
        assert STViT(TINY, drop_rate=rate, attn_drop_rate=rate, drop_path_rate=rate).train()
