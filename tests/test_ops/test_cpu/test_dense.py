"""Linear layers and depthwise convolutions with oneDNN equal those of PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from mmstvit.ops.cpu import linear, residual_dwconv
from mmstvit.ops.cpu.dense import linear_gelu

from ...helpers import image, relative_error

TOLERANCES = {torch.float32: 1e-6, torch.bfloat16: 1e-2}


def grads(out, *inputs):
    return torch.autograd.grad(out, inputs, image(*out.shape, seed=9, dtype=out.dtype))


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('shape', [(2, 5, 7, 12), (1, 1, 1, 12), (3, 1, 9, 12)])
def test_linear(shape, dtype):
    inputs = [image(*size, seed=i, dtype=dtype).requires_grad_() for i, size in enumerate([shape, (20, 12), (20,)])]
    out, expected = linear(*inputs), F.linear(*inputs)
    assert out.dtype == dtype
    for a, b in zip((out, *grads(out, *inputs)), (expected, *grads(expected, *inputs)), strict=True):
        assert relative_error(a, b) < TOLERANCES[dtype]


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_linear_and_gelu_without_a_gradient(dtype):
    x, weight, bias = (image(*size, seed=i, dtype=dtype) for i, size in enumerate([(2, 5, 7, 12), (20, 12), (20,)]))
    expected = F.gelu(F.linear(x, weight, bias))
    with torch.no_grad():
        assert relative_error(linear_gelu(x, weight, bias), expected) < TOLERANCES[dtype]
    assert relative_error(linear_gelu(x, weight, bias), expected) < TOLERANCES[dtype]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('function', [linear, linear_gelu])
def test_linear_under_autocast(dtype, function):
    x, weight = image(2, 5, 7, 12), image(20, 12, seed=1)
    with torch.autocast('cpu', dtype), torch.no_grad():
        out = function(x, weight, None)
    expected = F.linear(x, weight) if function is linear else F.gelu(F.linear(x, weight))
    assert out.dtype == dtype and relative_error(out.float(), expected) < 1e-2


def test_linear_has_second_derivatives():
    inputs = [image(*size, seed=i).requires_grad_() for i, size in enumerate([(1, 2, 3, 12), (20, 12), (20,)])]
    seconds = []
    for function in (linear, F.linear):
        grad = torch.autograd.grad(function(*inputs).square().sum(), inputs[1], create_graph=True)[0]
        seconds.append(torch.autograd.grad(grad.square().sum(), inputs[:2]))
    for a, b in zip(*seconds, strict=True):
        assert relative_error(a, b) < 1e-5


def test_linear_of_different_dtypes_is_refused():
    with pytest.raises(RuntimeError, match='dtype'):
        linear(image(1, 1, 2, 3), image(2, 3, dtype=torch.bfloat16), None)


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('shape', [(2, 5, 7, 12), (1, 1, 1, 12), (3, 1, 9, 12)])
def test_residual_convolution_adds_its_input(shape, dtype):
    inputs = [
        image(*size, seed=i, dtype=dtype).requires_grad_() for i, size in enumerate([shape, (12, 1, 3, 3), (12,)])
    ]
    x, weight, bias = inputs
    conv = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=12)
    out, expected = residual_dwconv(*inputs), x + conv.permute(0, 2, 3, 1)
    for a, b in zip((out, *grads(out, *inputs)), (expected, *grads(expected, *inputs)), strict=True):
        assert relative_error(a, b) < TOLERANCES[dtype]


def test_a_map_in_another_memory_format_gives_the_same():
    x = image(2, 12, 5, 7).permute(0, 2, 3, 1)  # NCHW memory
    weight, bias = image(20, 12, seed=1), image(20, seed=2)
    assert relative_error(linear(x, weight, bias), F.linear(x, weight, bias)) < 1e-6


def test_linear_of_an_empty_batch():
    assert linear(image(0, 5, 7, 12), image(20, 12), image(20)).shape == (0, 5, 7, 20)
