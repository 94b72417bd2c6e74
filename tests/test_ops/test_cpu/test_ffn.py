"""The FFN computed in strips equals the plain FFN, in values and in every gradient."""

import pytest
import torch
from torch import nn

from mmstvit.compat import ONEDNN_BF16
from mmstvit.layers import STViTFFN
from mmstvit.ops import super_token
from mmstvit.ops.cpu import conv_ffn, ffn

from ...helpers import assert_near, image, relative_error

needs_bf16 = pytest.mark.skipif(not ONEDNN_BF16, reason='this processor has no bf16 instructions')
NAMES = ('x', 'w1', 'b1', 'wd', 'bd', 'w2', 'b2')
# Several images per strip; one image per strip; rows of an image, of equal and of unequal numbers; a single column.
SHAPES = [(5, 6, 5, 8), (3, 12, 8, 8), (1, 40, 9, 8), (2, 37, 11, 8), (1, 120, 1, 8)]


@pytest.fixture(autouse=True)
def small_strips(monkeypatch):
    monkeypatch.setattr(ffn, 'STRIP_BYTES', 12_000)
    monkeypatch.setattr(ffn, 'LARGE_BYTES', 12_000)
    monkeypatch.setattr(ffn, 'LARGE_BYTES_WITH_GRAD', 12_000)
    monkeypatch.setattr(ffn, 'MIN_ROWS', 3)


def arguments(shape, dtype=torch.float32):
    c = shape[-1]
    sizes = [shape, (4 * c, c), (4 * c,), (4 * c, 1, 3, 3), (4 * c,), (c, 4 * c), (c,)]
    return [image(*size, seed=i, dtype=dtype).requires_grad_() for i, size in enumerate(sizes)]


def values_and_gradients(function, inputs):
    out = function(*inputs)
    wanted = [t for t in inputs if t.requires_grad]
    grads = torch.autograd.grad(out, wanted, image(*out.shape, seed=9, dtype=out.dtype))
    names = [name for name, t in zip(NAMES, inputs, strict=True) if t.requires_grad]
    return {'out': out.detach(), **dict(zip(names, grads, strict=True))}


@pytest.mark.parametrize('shape', SHAPES)
def test_values_and_gradients(shape):
    inputs = arguments(shape)
    assert ffn._is_large(inputs[0], 4 * shape[-1])
    actual = values_and_gradients(conv_ffn, inputs)
    assert_near(actual, values_and_gradients(super_token.conv_ffn, inputs), 2e-6)


def test_values_do_not_depend_on_gradients():
    inputs = arguments((2, 37, 11, 8))
    expected = conv_ffn(*inputs)
    with torch.no_grad():
        assert torch.equal(conv_ffn(*inputs), expected)


@pytest.mark.parametrize('frozen', [(0,), (1, 2), (3,), (5, 6), (0, 1, 2, 3, 4, 5)])
def test_frozen_tensors_get_no_gradient(frozen):
    inputs = arguments((2, 37, 11, 8))
    for i in frozen:
        inputs[i].requires_grad_(False)
    actual = values_and_gradients(conv_ffn, inputs)
    assert len(actual) == 1 + len(inputs) - len(frozen)
    assert_near(actual, values_and_gradients(super_token.conv_ffn, inputs), 2e-6)


@needs_bf16
def test_under_autocast():
    inputs = arguments((2, 37, 11, 8))
    expected = values_and_gradients(super_token.conv_ffn, inputs)
    with torch.autocast('cpu', torch.bfloat16):
        out = conv_ffn(*inputs)
        assert out.dtype == torch.bfloat16
        actual = values_and_gradients(conv_ffn, inputs)
    assert {t.dtype for name, t in actual.items() if name != 'out'} == {torch.float32}
    assert_near({k: v.float() for k, v in actual.items()}, expected, 2e-2)


def test_second_derivative_is_refused():
    inputs = arguments((2, 37, 11, 8))
    (grad,) = torch.autograd.grad(conv_ffn(*inputs).square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


@needs_bf16
def test_gradients_of_many_strips_add_up_in_fp32(monkeypatch):
    """In bf16 the contribution of each of the sixty strips would be lost in the sum of the strips before it."""
    monkeypatch.setattr(ffn, 'STRIP_BYTES', 1)
    inputs = arguments((1, 180, 8, 8), torch.bfloat16)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    actual = values_and_gradients(conv_ffn, inputs)
    expected = values_and_gradients(super_token.conv_ffn, exact)
    for name in NAMES[1:]:
        assert actual[name].dtype == torch.bfloat16
        assert relative_error(actual[name].double(), expected[name]) < 1e-2, name


class TestLayer:
    def build(self):
        torch.manual_seed(0)
        return STViTFFN(8)

    def count(self, monkeypatch):
        calls = []
        real = ffn._strips
        monkeypatch.setattr(ffn, '_strips', lambda *a: calls.append(1) or real(*a))
        return calls

    @pytest.mark.parametrize(
        'change',
        ['dropout', 'forward hook', 'hook on the dropout', 'replaced layer', 'double precision', 'fp16 autocast'],
    )
    def test_layers_run_one_by_one_where_strips_would_change_something(self, change, monkeypatch):
        calls, layer, x = self.count(monkeypatch), self.build(), image(1, 20, 20, 8)
        seen = []
        if change == 'dropout':
            layer.drop.p = 0.5
        elif change == 'forward hook':
            layer.fc1.register_forward_hook(lambda *_: seen.append(1))
        elif change == 'hook on the dropout':
            layer.drop.register_forward_hook(lambda *_: seen.append(1))
        elif change == 'replaced layer':
            layer.fc2 = nn.Linear(32, 8)
        elif change == 'double precision':
            layer, x = layer.double(), x.double()
        with torch.autocast('cpu', torch.float16, enabled=change == 'fp16 autocast'):
            layer(x)
        assert not calls
        assert bool(seen) == ('hook' in change)
