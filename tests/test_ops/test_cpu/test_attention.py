"""Attention with oneDNN equals the naive reference, in values and in every gradient."""

from unittest import mock

import pytest
import torch
import torch.nn.functional as F

from mmstvit.compat import ONEDNN_BF16
from mmstvit.ops import naive
from mmstvit.ops.cpu import attention, self_attention
from mmstvit.ops.cpu.attention import choose_attention

from ...helpers import image, relative_error

needs_bf16 = pytest.mark.skipif(not ONEDNN_BF16, reason='this processor has no bf16 instructions')
SDPA = 'scaled_dot_product_attention'
SIZES = [(2, 70, 3, 8), (1, 130, 1, 64), (1, 64, 2, 5)]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(attention, 'MIN_TOKENS', 64)
    monkeypatch.setattr(attention, 'ROWS_BYTES', 1)
    monkeypatch.setattr(attention, 'MIN_ROWS', 48)
    monkeypatch.setenv('MMSTVIT_CPU_ATTENTION', 'rows')


def out_and_gradient(function, qkv, heads):
    qkv = qkv.clone().requires_grad_()
    out = function(qkv, heads)
    (grad,) = torch.autograd.grad(out, qkv, image(*out.shape, seed=1, dtype=out.dtype))
    return out, grad


@pytest.mark.parametrize(
    ('dtype', 'tolerance'), [(torch.float32, 2e-6), pytest.param(torch.bfloat16, 2e-2, marks=needs_bf16)]
)
@pytest.mark.parametrize(('batch', 'tokens', 'heads', 'head_dim'), SIZES)
def test_equals_naive(batch, tokens, heads, head_dim, dtype, tolerance):
    qkv = image(batch, tokens, 3 * heads * head_dim, dtype=dtype)
    with mock.patch.object(attention, 'attend_by_rows', wraps=attention.attend_by_rows) as by_rows:
        out, grad = out_and_gradient(self_attention, qkv, heads)
    assert by_rows.call_count == 1
    expected, expected_grad = out_and_gradient(naive.self_attention, qkv.float(), heads)
    assert out.dtype == grad.dtype == dtype and out.is_contiguous()
    assert relative_error(out.float(), expected) < tolerance
    assert relative_error(grad.float(), expected_grad) < tolerance
    with torch.no_grad():
        assert torch.equal(self_attention(qkv, heads), out)


def test_large_logits_stay_finite():
    out, grad = out_and_gradient(self_attention, 100 * image(1, 64, 24), 1)
    assert out.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize('case', ['few tokens', 'dropout', 'no operator'])
def test_pytorch_computes_other_cases(case, monkeypatch):
    qkv, dropout = image(1, 63 if case == 'few tokens' else 64, 24), 0.5 if case == 'dropout' else 0.0
    if case == 'no operator':
        monkeypatch.setattr(attention, 'ONEDNN_LINEAR', None)
    with mock.patch.object(attention, 'attend_by_rows', side_effect=AssertionError):
        out = self_attention(qkv, 2, dropout)
    assert dropout or relative_error(out, naive.self_attention(qkv, 2)) < 2e-6


class TestChoice:
    @pytest.fixture
    def slow(self, monkeypatch) -> set[str]:
        """Return a set of the ways that take longer than they would."""
        names: set[str] = set()
        clock = [0.0]
        monkeypatch.delenv('MMSTVIT_CPU_ATTENTION')
        monkeypatch.setattr(attention.time, 'perf_counter', lambda: clock[0])
        for module, function, name in ((attention, 'attend_by_rows', 'rows'), (F, SDPA, 'sdpa')):
            attend = getattr(module, function)

            def timed(*qkv, attend=attend, name=name):
                clock[0] += 2 if name in names else 1
                return attend(*qkv)

            monkeypatch.setattr(module, function, timed)
        attention._measure.cache_clear()
        yield names
        attention._measure.cache_clear()

    @pytest.mark.parametrize(('slower', 'faster'), [('rows', 'sdpa'), ('sdpa', 'rows')])
    @pytest.mark.parametrize('dtype', [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
    def test_the_faster_one_at_inference(self, slow, slower, faster, dtype):
        slow.add(slower)
        random = torch.get_rng_state()
        with torch.no_grad():
            assert choose_attention(dtype) == faster
            slow.symmetric_difference_update({'rows', 'sdpa'})
            assert choose_attention(dtype) == faster  # measured once
        assert torch.equal(torch.get_rng_state(), random)

    @pytest.mark.parametrize('slower', ['rows', 'sdpa'])
    def test_training_does_not_depend_on_times(self, slow, slower):
        slow.add(slower)
        assert choose_attention(torch.float32) == 'sdpa' and choose_attention(torch.bfloat16) == 'rows'

    @pytest.mark.parametrize('name', ['rows', 'sdpa'])
    def test_by_name(self, name, monkeypatch):
        monkeypatch.setenv('MMSTVIT_CPU_ATTENTION', name)
        assert choose_attention(torch.float32) == choose_attention(torch.bfloat16) == name

    def test_unknown_name(self, monkeypatch):
        monkeypatch.setenv('MMSTVIT_CPU_ATTENTION', 'flash')
        with pytest.raises(ValueError, match=r"MMSTVIT_CPU_ATTENTION must be 'rows' or 'sdpa', but got 'flash'"):
            choose_attention(torch.float32)


def test_second_derivative_is_refused():
    qkv = image(1, 64, 24).requires_grad_()
    (grad,) = torch.autograd.grad(self_attention(qkv, 1).square().sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def test_few_tokens_in_bf16_without_a_gradient():
    qkv = image(3, 49, 3 * 2 * 64, dtype=torch.bfloat16)
    expected = naive.self_attention(qkv.float(), 2)
    with mock.patch.object(attention, 'attend_whole', wraps=attention.attend_whole) as whole:
        with_gradient = self_attention(qkv, 2)
        assert whole.call_count == 0
        with torch.no_grad():
            out = self_attention(qkv, 2)
            assert whole.call_count == 1
            self_attention(qkv, 2, dropout=0.5)
            self_attention(qkv.float(), 2)
            assert whole.call_count == 1
    assert out.dtype == torch.bfloat16 and out.is_contiguous()
    assert relative_error(out.float(), expected) < 1e-2
    assert relative_error(with_gradient.float(), expected) < 1e-2
