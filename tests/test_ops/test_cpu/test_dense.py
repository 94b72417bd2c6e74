"""Linear layers and depthwise convolutions with oneDNN equal those of PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from mmstvit.ops.cpu import linear, residual_dwconv

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
