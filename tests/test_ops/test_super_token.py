"""The fast operators against the naive reference; ``test_golden.py`` compares both with the official implementation."""

import math
from unittest import mock

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from mmstvit.layers import SuperTokenAttention
from mmstvit.ops import naive, super_token

from ..helpers import (
    OPS,
    assert_near,
    count_saved_numbers,
    gradients,
    image,
    relative_error,
    unwanted_super_token,
    use_ops,
)

# Errors are relative to the largest entry of each tensor; everything runs in fp64. With two iterations and a single
# channel the order of sums alone makes 1e-12.
TOLERANCE = 4e-12
both = pytest.mark.parametrize('ops', OPS.values(), ids=OPS)

side = st.integers(1, 40)
maps = {
    'height': side,
    'width': side,
    'batch': st.integers(1, 3),
    'stoken_size': st.integers(1, 8),
    'n_iter': st.integers(1, 3),
    'scale': st.sampled_from([0.1, 1.0, 3.0]),
    'seed': st.integers(0, 2**16),
}


def examples(**extra):
    """Cases that must be among the drawn ones: no padding, padding on one or both sides, 1×1 grids, lines."""

    def decorate(test):
        cases = [(8, 12, 4, 1), (8, 9, 4, 2), (9, 8, 4, 1), (13, 7, 3, 3), (1, 1, 1, 3), (1, 1, 8, 1), (5, 3, 8, 2)]
        cases += [(1, 40, 4, 1), (40, 1, 7, 2), (2, 2, 1, 1)]
        for i, (height, width, s, n) in enumerate(cases):
            options = dict(height=height, width=width, stoken_size=s, n_iter=n, seed=0)
            test = example(batch=1 + i % 2, scale=(1.0, 3.0)[i % 2], **options, **extra)(test)
        return test

    return decorate


def double(*size: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return (image(*size, seed=seed, dtype=torch.float64) * scale).requires_grad_()


def grid(height: int, width: int, s: int) -> tuple[int, int]:
    return -(-height // s), -(-width // s)


class TestFastEqualsNaive:
    @given(channels=st.integers(1, 6), **maps)
    @examples(channels=3)
    def test_sample_super_tokens(self, height, width, batch, stoken_size, n_iter, scale, seed, channels):
        x = double(batch, height, width, channels, seed=seed, scale=scale)
        h, w = grid(height, width, stoken_size)
        results = {}
        for name, ops in OPS.items():
            tokens, affinity = ops.sample_super_tokens(x, stoken_size, n_iter)
            assert tokens.shape == (batch, h, w, channels)
            assert affinity.shape == (batch, h, w, stoken_size**2, 9)
            assert not affinity.requires_grad
            assert relative_error(affinity.sum(-1), torch.ones_like(affinity[..., 0])) <= TOLERANCE
            (grad,) = torch.autograd.grad(tokens, x, double(*tokens.shape, seed=seed + 1))
            results[name] = {'tokens': tokens.detach(), 'affinity': affinity, 'grad': grad}
        assert_near(results['fast'], results['naive'], TOLERANCE)

    @given(channels=st.integers(1, 6), **maps)
    @examples(channels=3)
    def test_upsample_super_tokens(self, height, width, batch, stoken_size, n_iter, scale, seed, channels):
        h, w = grid(height, width, stoken_size)
        affinity = double(batch, h, w, stoken_size**2, 9, seed=seed, scale=scale * n_iter).softmax(-1).detach()
        tokens = double(batch, h, w, channels, seed=seed + 1)
        results = {}
        for name, ops in OPS.items():
            x = ops.upsample_super_tokens(tokens, affinity, (height, width))
            assert x.shape == (batch, height, width, channels)
            (grad,) = torch.autograd.grad(x, tokens, double(*x.shape, seed=seed + 2))
            results[name] = {'x': x.detach(), 'grad': grad}
        assert_near(results['fast'], results['naive'], TOLERANCE)

    @given(
        batch=st.integers(1, 3),
        tokens=st.integers(1, 300),
        heads=st.integers(1, 5),
        head_dim=st.integers(1, 6),
        scale=st.sampled_from([0.1, 1.0, 3.0]),
        seed=st.integers(0, 2**16),
    )
    @example(batch=1, tokens=1, heads=1, head_dim=1, scale=1.0, seed=0)
    @example(batch=2, tokens=1600, heads=3, head_dim=4, scale=1.0, seed=0)
    def test_self_attention(self, batch, tokens, heads, head_dim, scale, seed):
        qkv = double(batch, tokens, 3 * heads * head_dim, seed=seed, scale=scale)
        results = {}
        for name, ops in OPS.items():
            out = ops.self_attention(qkv, heads)
            assert out.shape == (batch, tokens, heads * head_dim)
            (grad,) = torch.autograd.grad(out, qkv, double(*out.shape, seed=seed + 1))
            results[name] = {'out': out.detach(), 'grad': grad}
        assert_near(results['fast'], results['naive'], TOLERANCE)

    @given(heads=st.integers(1, 3), head_dim=st.integers(1, 4), **maps)
    @examples(heads=2, head_dim=3)
    def test_layer(self, height, width, batch, stoken_size, n_iter, scale, seed, heads, head_dim):
        torch.manual_seed(seed)
        layer = SuperTokenAttention(heads * head_dim, heads, stoken_size, n_iter).double()
        results = {}
        for name, ops in OPS.items():
            x = double(batch, height, width, heads * head_dim, seed=seed, scale=scale)
            layer.zero_grad()
            with use_ops(ops):
                out = layer(x)
                assert out.shape == x.shape
                out.backward(double(*out.shape, seed=seed + 1))
            results[name] = {'out': out.detach(), 'x.grad': x.grad, **gradients(layer)}
        assert_near(results['fast'], results['naive'], TOLERANCE)


@both
class TestDefinition:
    def test_normalizer_has_an_epsilon(self, ops):
        # The first token belongs to its own cell by e / (e + e³⁰ + 7) ≈ 2.5e-13 only: the epsilon outweighs it.
        x = torch.tensor([1.0, 30.0], dtype=torch.float64).reshape(1, 1, 2, 1)
        own = math.e / (math.e + math.exp(30) + 7)
        tokens, _ = ops.sample_super_tokens(x, 1)
        assert tokens[0, 0, 0, 0].item() == pytest.approx(own / (own + 1e-12), rel=1e-9)


class TestStopGradient:
    @pytest.mark.parametrize('layer', [False, True], ids=['sampling', 'whole layer'])
    @pytest.mark.parametrize('n_iter', [1, 2])
    def test_finite_differences_agree_only_with_a_frozen_association(self, n_iter, layer):
        torch.manual_seed(0)
        attention = SuperTokenAttention(4, 2, 2, n_iter).double()
        x, direction = double(1, 5, 6, 4), double(1, 5, 6, 4, seed=1).detach()

        def function(x: Tensor) -> Tensor:
            out = attention(x) if layer else super_token.sample_super_tokens(x, 2, n_iter)[0]
            return (out * image(*out.shape, seed=2, dtype=torch.float64)).sum()

        def difference(step: float = 1e-6) -> float:
            with torch.no_grad():
                return ((function(x + step * direction) - function(x - step * direction)) / (2 * step)).item()

        (grad,) = torch.autograd.grad(function(x), x)
        _, affinity = super_token.sample_super_tokens(x, 2, n_iter)
        with mock.patch.object(super_token, 'associate', lambda *_: affinity):
            frozen = difference()
        assert (grad * direction).sum().item() == pytest.approx(frozen, rel=1e-7)
        assert difference() != pytest.approx(frozen, rel=1e-2)


class TestPrecision:
    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_autocast_leaves_sampling_in_fp32(self, dtype):
        x = image(2, 9, 10, 6)
        expected = super_token.sample_super_tokens(x, 4, 2)
        with torch.autocast('cpu', dtype):
            actual = super_token.sample_super_tokens(x, 4, 2)
        for a, b in zip(actual, expected, strict=True):
            assert a.dtype == torch.float32
            assert torch.equal(a, b)

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_half_input_has_an_association_in_fp32(self, dtype):
        x = (image(2, 9, 10, 6) * 20).to(dtype).requires_grad_()
        tokens, affinity = super_token.sample_super_tokens(x, 4, 2)
        out = super_token.upsample_super_tokens(tokens, affinity, (9, 10))
        out.float().sum().backward()
        assert affinity.dtype == torch.float32
        assert tokens.dtype == out.dtype == x.grad.dtype == dtype
        for value in (tokens, affinity, out, x.grad):
            assert value.isfinite().all()
        assert relative_error(affinity.sum(-1), torch.ones_like(affinity[..., 0])) <= 1e-6

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_a_super_token_with_nearly_no_weight_has_finite_gradients(self, dtype):
        """Its gradient divided by its normalizer overflows in fp16, and times a weight of 0 it would be NaN."""
        x = unwanted_super_token().to(dtype)
        results = []
        for module, y in ((super_token, x), (naive, x.double())):
            y = y.requires_grad_()
            tokens, affinity = module.sample_super_tokens(y, 4)
            (grad,) = torch.autograd.grad(tokens, y, image(*tokens.shape, dtype=y.dtype) * 10)
            results.append({'tokens': tokens.detach().double(), 'grad': grad.double()})
        assert super_token.total_weights(affinity).min() < 1e-4
        assert_near(*results, 4e-3 if dtype == torch.float16 else 3e-2)


@both
class TestAttentionDropout:
    def test_drops_whole_weights_and_keeps_the_mean(self, ops):
        qkv = torch.zeros(1, 400, 3, dtype=torch.float64)
        qkv[..., 2] = 1  # equal weights 1/400 on values of 1: without dropout every output is 1
        torch.manual_seed(0)
        out = ops.self_attention(qkv, 1, dropout=0.5)
        assert out.std() > 0.01
        assert out.mean().item() == pytest.approx(1, abs=0.01)


def test_only_the_association_is_kept_for_the_backward_pass():
    """No gathered neighborhood and no copy of the map: nine numbers a token, and one a super token."""
    b, side, c, s = 2, 24, 64, 4
    x = image(b, side, side, c).requires_grad_()
    with count_saved_numbers() as count:
        tokens, affinity = super_token.sample_super_tokens(x, s)
        y = super_token.upsample_super_tokens(tokens, affinity, (side, side))
    assert y.requires_grad
    cells = b * (side // s) ** 2
    assert count() == 9 * b * side * side + cells
