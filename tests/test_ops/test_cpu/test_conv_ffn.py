"""The FFN by strips equals the FFN in one go, in values and in every gradient."""

import pytest
import torch
from torch import nn

from mmstvit.layers import STViTFFN
from mmstvit.ops.cpu import conv_ffn

from ..helpers import assert_near, gradients, image, relative_error

NAMES = ('x', 'w1', 'b1', 'wd', 'bd', 'w2', 'b2')
# Several images per strip; one image per strip; rows of an image, of equal and of unequal numbers; a single column.
SHAPES = [(5, 6, 5, 8), (3, 12, 8, 8), (1, 40, 9, 8), (2, 37, 11, 8), (1, 120, 1, 8)]


@pytest.fixture(autouse=True)
def small_strips(monkeypatch):
    monkeypatch.setattr(conv_ffn, 'STRIP_BYTES', 12_000)
    monkeypatch.setattr(conv_ffn, 'LARGE_BYTES', 12_000)
    monkeypatch.setattr(conv_ffn, 'LARGE_BYTES_WITH_GRAD', 12_000)
    monkeypatch.setattr(conv_ffn, 'MIN_ROWS', 3)


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
    assert conv_ffn.is_large(inputs[0], 4 * shape[-1])
    actual = values_and_gradients(conv_ffn.conv_ffn_by_strips, inputs)
    assert_near(actual, values_and_gradients(conv_ffn.conv_ffn, inputs), 2e-6)


@pytest.mark.parametrize('shape', SHAPES)
def test_strips_cover_every_row_of_every_image_once(shape):
    x = image(*shape)
    count = torch.zeros(shape[:2])
    strips = conv_ffn._strips(x, 4 * shape[-1])
    assert len(strips) > 1
    for images, above, top, bottom, below in strips:
        count[images, top:bottom] += 1
        assert above == (top > 0) and below == (bottom < shape[1])
    assert (count == 1).all()


def test_values_do_not_depend_on_gradients():
    inputs = arguments((2, 37, 11, 8))
    expected = conv_ffn.conv_ffn_by_strips(*inputs)
    with torch.no_grad():
        assert torch.equal(conv_ffn.conv_ffn_by_strips(*inputs), expected)


@pytest.mark.parametrize('frozen', [(0,), (1, 2), (3,), (5, 6), (0, 1, 2, 3, 4, 5)])
def test_what_is_frozen_gets_no_gradient(frozen):
    inputs = arguments((2, 37, 11, 8))
    for i in frozen:
        inputs[i].requires_grad_(False)
    actual = values_and_gradients(conv_ffn.conv_ffn_by_strips, inputs)
    assert len(actual) == 1 + len(inputs) - len(frozen)
    assert_near(actual, values_and_gradients(conv_ffn.conv_ffn, inputs), 2e-6)


def test_under_autocast():
    inputs = arguments((2, 37, 11, 8))
    expected = values_and_gradients(conv_ffn.conv_ffn, inputs)
    with torch.autocast('cpu', torch.bfloat16):
        out = conv_ffn.conv_ffn_by_strips(*inputs)
        assert out.dtype == torch.bfloat16
        actual = values_and_gradients(conv_ffn.conv_ffn_by_strips, inputs)
    assert {t.dtype for name, t in actual.items() if name != 'out'} == {torch.float32}
    assert_near({k: v.float() for k, v in actual.items()}, expected, 2e-2)


def test_there_is_no_second_derivative():
    inputs = arguments((2, 37, 11, 8))
    (grad,) = torch.autograd.grad(conv_ffn.conv_ffn_by_strips(*inputs).square().sum(), inputs[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def test_gradients_of_many_strips_add_up_in_fp32(monkeypatch):
    """Added up in bf16, what each of the sixty strips contributes would be lost to the sum of those before it."""
    monkeypatch.setattr(conv_ffn, 'STRIP_BYTES', 1)
    inputs = arguments((1, 180, 8, 8), torch.bfloat16)
    exact = [t.detach().double().requires_grad_() for t in inputs]
    actual = values_and_gradients(conv_ffn.conv_ffn_by_strips, inputs)
    expected = values_and_gradients(conv_ffn.conv_ffn, exact)
    for name in NAMES[1:]:
        assert actual[name].dtype == torch.bfloat16
        assert relative_error(actual[name].double(), expected[name]) < 1e-2, name


class TestLayer:
    def ffn(self):
        torch.manual_seed(0)
        return STViTFFN(8)

    def count(self, monkeypatch):
        calls = []
        real = conv_ffn.conv_ffn_by_strips
        monkeypatch.setattr(conv_ffn, 'conv_ffn_by_strips', lambda *a: calls.append(1) or real(*a))
        return calls

    def test_cuts_large_maps_alone(self, monkeypatch):
        monkeypatch.setattr(conv_ffn, 'LARGE_BYTES_WITH_GRAD', 24_000)
        calls, ffn = self.count(monkeypatch), self.ffn()
        with torch.no_grad():
            ffn(image(1, 9, 10, 8))  # 4 bytes × 32 channels for every token
            assert not calls
            ffn(image(1, 10, 10, 8))
            assert calls
        calls.clear()
        ffn(image(1, 18, 10, 8))
        assert not calls
        ffn(image(1, 19, 10, 8))
        assert calls

    def test_gives_the_same_either_way(self, monkeypatch):
        x = image(2, 33, 20, 8)
        results = []
        for large in (0, 1 << 30):
            monkeypatch.setattr(conv_ffn, 'LARGE_BYTES_WITH_GRAD', large)
            ffn = self.ffn()
            out = ffn(x)
            out.backward(image(*x.shape, seed=1))
            results.append({'out': out.detach(), **gradients(ffn)})
        assert_near(*results, 2e-6)

    @pytest.mark.parametrize(
        'change',
        ['dropout', 'forward hook', 'hook on the dropout', 'replaced layer', 'double precision', 'fp16 autocast'],
    )
    def test_calls_the_layers_where_strips_would_change_something(self, change, monkeypatch):
        calls, ffn, x = self.count(monkeypatch), self.ffn(), image(1, 20, 20, 8)
        seen = []
        if change == 'dropout':
            ffn.drop.p = 0.5
        elif change == 'forward hook':
            ffn.fc1.register_forward_hook(lambda *_: seen.append(1))
        elif change == 'hook on the dropout':
            ffn.drop.register_forward_hook(lambda *_: seen.append(1))
        elif change == 'replaced layer':
            ffn.fc2 = nn.Linear(32, 8)
        elif change == 'double precision':
            ffn, x = ffn.double(), x.double()
        with torch.autocast('cpu', torch.float16, enabled=change == 'fp16 autocast'):
            ffn(x)
        assert not calls
        assert bool(seen) == ('hook' in change)

    def test_in_double_precision_keeps_one_hidden_map(self):
        """Where nothing is cut, the maps after the activation are computed again in the backward pass."""
        ffn, x = self.ffn().double(), image(1, 20, 20, 8, dtype=torch.float64)
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
            out = ffn(x)
        assert sum(n == 20 * 20 * 32 for n in kept) <= 1
        out.sum().backward()
        reference = self.ffn().double()
        y = reference._tail(reference.fc1(x))
        y.sum().backward()
        assert relative_error(out.detach(), y.detach()) < 1e-12
        assert_near(gradients(ffn), gradients(reference), 1e-12)
