"""Mixed precision and half-precision weights beside fp32, for extreme images.

Errors are distances over lengths (Euclidean), in units of the precision's rounding error u, which is 2^-8 for bf16 and
2^-11 for fp16. Every operation of a block rounds its result, and the errors of some hundred roundings add up as a
random walk does. Measured, for every architecture: up to 8 u in the features and, but for huge images, 23 u in the
gradients; ordinary images have 3 to 6 u in all of them. Behind huge numbers gradients are small differences: 66 u. The
published algorithm (the backend 'naive') is no nearer in the same precision, see the last test.
"""

import contextlib
import copy
import itertools
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from mmstvit import STViT
from mmstvit.ops import use_backend

from ..helpers import cotangent_loss, gradients, image, tiny

UNIT = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
OUTPUTS, PARAMETERS, IMAGE, HUGE = 16, 36, 36, 120  # times u
SIZE = (40, 72)


def hot_pixel() -> Tensor:
    x = torch.zeros(3, *SIZE)
    x[:, 13, 29] = 1000
    return x


def edge() -> Tensor:
    x = torch.zeros(3, *SIZE)
    x[:, :, SIZE[1] // 2 :] = 100
    return x


# Each comes with an ordinary image beside it: see test_a_batch_of_one_color for what comes alone.
IMAGES = {
    'ordinary': lambda: image(3, *SIZE),
    'not normalized': lambda: image(3, *SIZE).abs() * 100,
    # Up to 12,000. fp16 ends at 65504, and the largest activation of STViT-large is twice that of its image.
    'huge': lambda: image(3, *SIZE) * 3e3,
    'tiny': lambda: image(3, *SIZE) * 1e-6,
    'black': lambda: torch.zeros(3, *SIZE),
    'constant': lambda: torch.full((3, *SIZE), 2.0),
    'hot pixel': hot_pixel,
    'edge': edge,
    # A map of 9×9 tokens: of the last cell 63 tokens of 64 are padding, in the second stage 15 of 16.
    'padding': lambda: image(3, 33, 33),
}
both_modes = pytest.mark.parametrize('train', [False, True], ids=['eval', 'train'])
both_dtypes = pytest.mark.parametrize('dtype', UNIT, ids=lambda dtype: str(dtype).removeprefix('torch.'))


def batch(name: str) -> Tensor:
    x = IMAGES[name]()
    return torch.stack([x, image(*x.shape, seed=1)])


def run(model: STViT, x: Tensor, autocast: torch.dtype | None = None) -> dict[str, Tensor]:
    """Features, and gradients of the image and the parameters, in fp32 and under autocast."""
    x = x.clone().requires_grad_()
    model.zero_grad()
    with torch.autocast('cpu', autocast) if autocast else contextlib.nullcontext():
        features = model(x)
    # Every stage counts the same, as it would in a detector; 0.01 stands for a loss that is a mean.
    cotangent_loss([y.float() * 0.01 for y in features]).backward()
    grads = {f'grad {name}': grad.float().clone() for name, grad in gradients(model).items()}
    return {f'stage {i}': y.detach().float() for i, y in enumerate(features)} | grads | {'image': x.grad.float()}


def distance(actual: Tensor, expected: Tensor) -> float:
    return ((actual - expected).norm() / expected.norm()).item()


def parameters(results: dict[str, Tensor]) -> Tensor:
    """The gradients of all parameters in one vector."""
    return torch.cat([tensor.flatten() for name, tensor in results.items() if name.startswith('grad ')])


def errors(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[float, float, float]:
    """Of the features, the gradients of the parameters and that of the image."""
    assert actual.keys() == expected.keys()
    not_finite = [name for name, tensor in actual.items() if not tensor.isfinite().all()]
    assert not not_finite
    features = max(distance(actual[name], expected[name]) for name in expected if name.startswith('stage '))
    return (features, distance(parameters(actual), parameters(expected)), distance(actual['image'], expected['image']))


def half(model: STViT, x: Tensor, dtype: torch.dtype, weights: bool) -> dict[str, Tensor]:
    return run(copy.deepcopy(model).to(dtype), x.to(dtype)) if weights else run(model, x, dtype)


def check(model: STViT, name: str, dtypes: Iterable[torch.dtype]) -> None:
    x = batch(name)
    expected = run(model, x)
    limits = (OUTPUTS, HUGE, HUGE) if name in ('huge', 'not normalized') else (OUTPUTS, PARAMETERS, IMAGE)
    for dtype, weights in itertools.product(dtypes, (False, True)):
        units = [error / UNIT[dtype] for error in errors(half(model, x, dtype, weights), expected)]
        near = all(error <= limit for error, limit in zip(units, limits, strict=True))
        assert near, f'{name}, {dtype}, half weights {weights}: {units} of {limits} u'


@pytest.mark.parametrize('name', IMAGES)
@both_modes
@both_dtypes
def test_tiny(name, train, dtype):
    check(tiny().train(train), name, [dtype])


@pytest.mark.parametrize(
    ('arch', 'train'),
    [
        pytest.param('small', False, marks=pytest.mark.long),
        pytest.param('base', True, marks=pytest.mark.long),
        pytest.param('large', True, marks=pytest.mark.slow),  # has the layers of base, and more of them
    ],
)
def test_every_architecture(arch, train):
    torch.manual_seed(0)
    check(STViT(arch).train(train), 'huge', UNIT)


@pytest.mark.parametrize('value', [0.0, 1e-6, 2.0])
@both_dtypes
def test_a_batch_of_one_color(value, dtype):
    """Nothing but one color: in training BatchNorm divides by a deviation of nearly 0, in every precision.

    Beyond the forward pass there is nothing to compare: fp32 is as far from fp64.
    """
    x = torch.full((2, 3, *SIZE), value)
    model = tiny()
    for train in (False, True):
        with torch.autocast('cpu', dtype):
            features = model.train(train)(x)
        assert all(y.isfinite().all() for y in features)
    assert errors(run(model.eval(), x, dtype), run(model, x))[0] <= OUTPUTS * UNIT[dtype]


@both_dtypes
def test_the_published_algorithm_is_not_closer(dtype):
    """In the same precision, beside itself in fp64."""
    model, x = tiny().eval(), batch('ordinary')
    with use_backend('naive'):
        expected = {name: t.float() for name, t in run(copy.deepcopy(model).double(), x.double()).items()}
        published = errors(run(model, x, dtype), expected)
    ours = errors(run(model, x, dtype), expected)
    assert all(a <= 1.25 * b for a, b in zip(ours, published, strict=True)), (ours, published)
