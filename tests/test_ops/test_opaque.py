"""The operators that the compiler does not look into equal the functions behind them, gradients too."""

import pytest
import torch
from torch import Tensor

from mmstvit.ops import opaque, super_token

from ..helpers import image, relative_error

SIZES = [(8, 8, 4), (7, 10, 4), (3, 5, 8), (1, 1, 2), (9, 4, 3)]


def attention(ops, x: Tensor, n_iter: int, s: int) -> Tensor:
    tokens, affinity = ops.sample_super_tokens(x, s, n_iter)
    return ops.upsample_super_tokens(tokens.sin(), affinity, x.shape[1:3])


@pytest.mark.parametrize(('height', 'width', 's'), SIZES)
@pytest.mark.parametrize('n_iter', [1, 2])
@pytest.mark.parametrize('layout', ['contiguous', 'NCHW memory'])
def test_values_and_gradients(height, width, s, n_iter, layout):
    results = []
    for ops in (opaque, super_token):
        x = image(2, height, width, 5, dtype=torch.float64)
        if layout != 'contiguous':
            x = x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        out = attention(ops, x.requires_grad_(), n_iter, s)
        out.backward(image(*out.shape, seed=1, dtype=torch.float64))
        results.append((out, x.grad))
    for actual, expected in zip(*results, strict=True):
        assert relative_error(actual, expected) <= 1e-12


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    results = []
    for ops in (opaque, super_token):
        x = image(2, 7, 10, 8, dtype=dtype).requires_grad_()
        out = attention(ops, x, 1, 4)
        out.backward(image(*out.shape, seed=1, dtype=dtype))
        assert out.dtype == x.grad.dtype == dtype
        results.append((out.float(), x.grad.float()))
    assert torch.equal(results[0][0], results[1][0])
    # Contributions to a super token's gradient are added in fp32 here.
    assert relative_error(results[0][1], results[1][1]) <= 0.02


@pytest.mark.parametrize(('height', 'width', 's'), SIZES[:3])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_operators_keep_their_promises(height, width, s, dtype):
    """To the compiler: shapes, strides and dtypes; nothing written to; gradients registered."""
    x = image(2, height, width, 5, dtype=dtype).requires_grad_()
    tokens, affinity = super_token.sample_super_tokens(x.detach(), s)
    calls = {
        opaque._sample: (x, s, 2),
        opaque._upsample: (tokens.clone().requires_grad_(), affinity, height, width),
        opaque._sample_grad: (tokens, affinity, height, width),
        opaque._upsample_grad: (x.detach(), affinity),
    }
    for operator, arguments in calls.items():
        torch.library.opcheck(operator, arguments)


def test_an_exported_program_names_no_operator_of_ours():
    class Attention(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            from mmstvit.ops import select

            return attention(select(x), x, 1, 4)

    program = torch.export.export(Attention(), (image(1, 8, 8, 4),))
    targets = [str(node.target) for node in program.graph.nodes if node.op == 'call_function']
    assert targets
    assert not [target for target in targets if target.startswith('mmstvit')]
