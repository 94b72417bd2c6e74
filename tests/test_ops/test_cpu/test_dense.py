"""Linear layers and depthwise convolutions with oneDNN equal those of PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from mmstvit.ops.cpu import linear, residual_dwconv
from mmstvit.ops.cpu.dense import linear_backward

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


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('needs', [(True, True, True), (False, True, False), (True, False, True)])
def test_gradients_of_linear_without_its_output(needs, dtype):
    x, weight, bias = torch.randn(2, 5, 7, 24), torch.randn(40, 24), torch.randn(40)
    x, weight, bias = (t.to(dtype).requires_grad_() for t in (x, weight, bias))
    out = torch.nn.functional.linear(x, weight, bias)
    grad = torch.randn_like(out)
    expected = torch.autograd.grad(out, (x, weight, bias), grad)
    with torch.no_grad():
        actual = linear_backward(grad, x, weight, needs)
    for a, e, need in zip(actual, expected, needs, strict=True):
        assert (a is not None) == need
        if need:
            assert a.shape == e.shape and a.dtype == dtype
            error = (a - e).abs().max() / e.abs().max()
            assert error <= (1e-6 if dtype == torch.float32 else 1e-2)
