"""The check before a benchmark: it passes what agrees with the published algorithm and refuses what does not."""

import pytest
import torch

from mmstvit import STViT
from mmstvit.analysis.agreement import TOLERANCES, check_agreement
from mmstvit.apis import UserError

from ..helpers import TINY, tiny

CPU = torch.device('cpu')


def check(prepare, train=False, dtype='fp32', model=None) -> dict[str, float]:
    return check_agreement('the-entry', model or tiny(), prepare, train, dtype, CPU)


def scaled(place: int, factor: float):
    """Multiplies one feature map."""
    return lambda model: lambda x: tuple(y * factor if i == place else y for i, y in enumerate(model(x)))


def with_other_gradients(model: STViT):
    return lambda x: tuple(y + 0.01 * (y - y.detach()) for y in model(x))


def with_statistics_counted_twice(model: STViT):
    def forward(x):
        with torch.no_grad():
            model(x)
        return model(x)

    return forward


def with_a_parameter_left_out(model: STViT):
    model.stages[1][0].gamma1.requires_grad_(False)
    return model


def with_another_weight(model: STViT):
    with torch.no_grad():
        model.stages[2][0].ffn.fc2.weight *= 1.01
    return model


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('dtype', TOLERANCES)
def test_ours_agrees(dtype, train):
    errors = check(lambda model: model, train, dtype)
    assert set(errors) == ({'features', 'gradients', 'statistics'} if train else {'features'})
    # Not compared with itself: rounding shows.
    assert all(0 < error < 1 for error in errors.values())


def test_ours_agrees_with_everything_random_dropped_and_frozen_stages():
    check(lambda model: model, True, model=tiny(drop_rate=0.5, attn_drop_rate=0.5, drop_path_rate=0.5, frozen_stages=1))


@pytest.mark.parametrize(
    ('sabotage', 'train', 'dtype', 'message'),
    [
        (scaled(2, 1.0001), False, 'fp32', 'features 2 is off by 0.0001 .* in fp32; 1e-05 is allowed'),
        (scaled(0, float('nan')), True, 'fp32', 'features 0 is off by inf'),
        (scaled(1, 1.1), False, 'bf16', 'features 1 is off by 0.1 .* in bf16'),
        (scaled(3, 1.1), True, 'fp16', 'features 3 is off by 0.1 .* in fp16'),
        (with_other_gradients, True, 'fp32', 'gradients .* is off by 0.01'),
        (with_statistics_counted_twice, True, 'fp32', 'statistics .*(running|num_batches)'),
        (with_a_parameter_left_out, True, 'fp32', r'gradients stages\.1\.0\.gamma1 is off by inf'),
    ],
)
def test_what_disagrees_is_refused(sabotage, train, dtype, message):
    with pytest.raises(UserError, match=f'^the-entry disagrees .* not timed: {message}'):
        check(sabotage, train, dtype)


def test_a_small_layer_scale_hides_nothing():
    model = STViT({**TINY, 'layer_scale_init_value': (1e-6,) * 4})
    with pytest.raises(UserError, match=r'features 3 is off by 0\.00'):
        check(with_another_weight, model=model)
