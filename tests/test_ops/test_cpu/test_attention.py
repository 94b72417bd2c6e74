"""Attention with oneDNN equals the naive one, in values and in every gradient."""

from unittest import mock

import pytest
import torch

from mmstvit.ops import dense, naive, row_attention, super_token

from ..helpers import image, relative_error

SIZES = [(2, 70, 3, 8), (1, 130, 1, 64), (1, 64, 2, 5)]


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    monkeypatch.setattr(row_attention, 'MIN_TOKENS', 64)
    monkeypatch.setattr(row_attention, 'ROWS_BYTES', 1)
    monkeypatch.setattr(row_attention, 'MIN_ROWS', 48)


def out_and_gradient(function, qkv, heads):
    qkv = qkv.clone().requires_grad_()
    out = function(qkv, heads)
    (grad,) = torch.autograd.grad(out, qkv, image(*out.shape, seed=1, dtype=out.dtype))
    return out, grad


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize(('batch', 'tokens', 'heads', 'head_dim'), SIZES)
def test_equals_naive(batch, tokens, heads, head_dim, dtype, tolerance):
    qkv = image(batch, tokens, 3 * heads * head_dim, dtype=dtype)
    with mock.patch.object(row_attention, 'attend_by_rows', wraps=row_attention.attend_by_rows) as by_rows:
        out, grad = out_and_gradient(super_token.self_attention, qkv, heads)
    assert by_rows.call_count == 1
    expected, expected_grad = out_and_gradient(naive.self_attention, qkv.float(), heads)
    assert out.dtype == grad.dtype == dtype and out.is_contiguous()
    assert relative_error(out.float(), expected) < tolerance
    assert relative_error(grad.float(), expected_grad) < tolerance
    with torch.no_grad():
        assert torch.equal(super_token.self_attention(qkv, heads), out)


def test_large_logits_stay_finite():
    out, grad = out_and_gradient(super_token.self_attention, 100 * image(1, 64, 24), 1)
    assert out.isfinite().all() and grad.isfinite().all()


@pytest.mark.parametrize('case', ['few tokens', 'dropout', 'double precision', 'oneDNN off', 'bf16 not supported'])
def test_is_not_used_for(case, monkeypatch):
    qkv, dropout = image(1, 63 if case == 'few tokens' else 64, 24), 0.5 if case == 'dropout' else 0.0
    if case == 'double precision':
        qkv = qkv.double()
    elif case == 'bf16 not supported':
        qkv = qkv.bfloat16()
        monkeypatch.setattr(dense, 'HAS_BF16', False)
    enabled = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = enabled and case != 'oneDNN off'
    try:
        with mock.patch.object(row_attention, 'attend_by_rows', side_effect=AssertionError):
            super_token.self_attention(qkv, 2, dropout)
    finally:
        torch.backends.mkldnn.enabled = enabled


def test_there_is_no_second_derivative():
    qkv = image(1, 64, 24).requires_grad_()
    (grad,) = torch.autograd.grad(super_token.self_attention(qkv, 1).square().sum(), qkv, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def test_few_tokens_in_bf16_without_a_gradient():
    qkv = image(3, 49, 3 * 2 * 64, dtype=torch.bfloat16)
    expected = naive.self_attention(qkv.float(), 2)
    with mock.patch.object(row_attention, 'attend_whole', wraps=row_attention.attend_whole) as whole:
        with_gradient = super_token.self_attention(qkv, 2)
        assert whole.call_count == 0
        with torch.no_grad():
            out = super_token.self_attention(qkv, 2)
            assert whole.call_count == 1
            super_token.self_attention(qkv, 2, dropout=0.5)
            super_token.self_attention(qkv.float(), 2)
            assert whole.call_count == 1
    assert out.dtype == torch.bfloat16 and out.is_contiguous()
    assert relative_error(out.float(), expected) < 1e-2
    assert relative_error(with_gradient.float(), expected) < 1e-2
