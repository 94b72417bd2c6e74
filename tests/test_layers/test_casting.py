"""One cast for all weights of a stage: the values and gradients of autocast's own casts."""

import threading

import pytest
import torch
from torch import Tensor, nn

from mmstvit import STViT
from mmstvit.layers import STViTBlock, cast_weights
from mmstvit.layers.casting import current_casts
from mmstvit.layers.linear import Linear
from mmstvit.ops import use_backend

from ..helpers import TINY, assert_equal, cotangent_loss, gradients, image


@pytest.fixture
def block() -> STViTBlock:
    torch.manual_seed(0)
    return STViTBlock(8, 2, 4, layer_scale_init_value=0.5).train()


def run(block: STViTBlock, dtype: torch.dtype, *modules: nn.Module) -> dict[str, Tensor]:
    """Run a block under autocast, with the weights of modules cast at once."""
    x = image(2, 9, 7, 8)
    with use_backend('torch'), torch.autocast('cpu', dtype), cast_weights(x, *modules):
        out = block(x)
    out.float().square().sum().backward()
    return {'out': out.detach(), **{name: grad for name, grad in gradients(block).items() if grad is not None}}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('frozen', ['', 'ffn.fc1.weight'])
def test_equals_the_casts_of_autocast(block, dtype, frozen):
    for name, weight in block.named_parameters():
        weight.requires_grad_(name != frozen)
    expected = run(block, dtype)
    block.zero_grad()
    actual = run(block, dtype, block)
    assert_equal(actual, expected)
    assert frozen not in actual
    assert all(grad.dtype == torch.float32 for grad in gradients(block).values() if grad is not None)


def test_casts_once_per_stage(monkeypatch):
    calls, copy = [], torch._foreach_copy_
    monkeypatch.setattr(torch, '_foreach_copy_', lambda casts, x: calls.append(len(casts)) or copy(casts, x))
    model = STViT({**TINY, 'layer_scale_init_value': (0.0,) * 4}).train()  # maps stay in bf16
    with torch.autocast('cpu', torch.bfloat16):
        features = model(image(2, 3, 64, 64))
    # The weights of batch norms stay in fp32.
    kept = sum(len(list(m.parameters())) for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert len(calls) == 4 and sum(calls) == len(list(model.parameters())) - kept
    cotangent_loss([y.float() for y in features]).backward()
    assert len(calls) == 8 and calls[:3:-1] == calls[:4]


def test_leaves_other_weights_alone():
    """Of another precision, and those that a parametrization computes."""
    x, layer, double = image(1, 1, 1, 2), nn.utils.parametrizations.weight_norm(Linear(2, 2)), Linear(2, 2).double()
    with torch.autocast('cpu', torch.bfloat16), cast_weights(x, layer, double):
        assert [tensor.dtype for tensor in layer.cast()] == [torch.float32, torch.bfloat16]
        assert double.cast()[0] is double.weight
        layer(x)
    assert not current_casts()


def test_other_threads_have_casts_of_their_own(block):
    seen = []
    with torch.autocast('cpu', torch.bfloat16), cast_weights(image(1), block):
        assert current_casts()
        thread = threading.Thread(target=lambda: seen.append(current_casts()))
        thread.start()
        thread.join()
    assert seen == [{}]


def test_second_derivatives():
    layer, x = Linear(3, 3), image(1, 1, 2, 3)
    with torch.autocast('cpu', torch.bfloat16), cast_weights(x, layer):
        out = layer(x)
    (grad,) = torch.autograd.grad(out.float().square().sum(), layer.weight, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), layer.weight)
    expected = 2 * x.sum(-1, keepdim=True) * x  # of Σ (w·x)² in one row of the weights
    torch.testing.assert_close(second, expected.sum((0, 1, 2)).expand(3, 3), rtol=0.02, atol=0.02)
