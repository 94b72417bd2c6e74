"""Multiply-accumulates against formulas on paper, against PyTorch's own counter, and of the two super token paths."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmstvit import STViT
from mmstvit.analysis import count_macs
from mmstvit.ops import naive

from ..helpers import TINY, tiny, use_ops

PADDED = (1, 3, 90, 118)  # cells of 4 and of 2 do not divide the maps of the first two stages


def total(macs: dict[str, Counter]) -> dict[str, int]:
    """Multiply-accumulates of all modules, by kind; without the kinds that did not occur."""
    return dict(sum(macs.values(), Counter()))


def count(module: nn.Module, *inputs: torch.Tensor) -> dict[str, int]:
    return total(count_macs(module, lambda: module(*inputs)))


class Function(nn.Module):
    """A function of tensors and one parameter as a module."""

    def __init__(self, function, *size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.function = function

    def forward(self, *inputs):
        return self.function(self.weight, *inputs)


LAYERS = {
    'linear': (nn.Linear(5, 7), (2, 3, 4, 5), {'linear': 24 * 7 * (5 + 1)}),
    'linear without bias': (nn.Linear(5, 7, bias=False), (4, 5), {'linear': 4 * 7 * 5}),
    'convolution': (nn.Conv2d(4, 6, 3, 2, 1), (2, 4, 9, 8), {'conv': 2 * 5 * 4 * 6 * (4 * 9 + 1)}),
    'depthwise': (nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), (1, 4, 5, 6), {'conv': 30 * 4 * 9}),
    'transposed': (nn.ConvTranspose2d(4, 6, 2, 2), (1, 4, 5, 6), {'conv': 30 * 4 * 6 * 4 + 120 * 6}),
    'BatchNorm': (nn.BatchNorm2d(4), (2, 4, 5, 6), {'norm': 2 * 240}),
    'BatchNorm without scale': (nn.BatchNorm2d(4, affine=False), (2, 4, 5, 6), {'norm': 240}),
    'SyncBatchNorm': (nn.SyncBatchNorm(4), (2, 4, 5, 6), {'norm': 2 * 240}),
    'LayerNorm': (nn.LayerNorm(6), (2, 4, 5, 6), {'norm': 2 * 240}),
    'GroupNorm': (nn.GroupNorm(2, 4), (2, 4, 5, 6), {'norm': 2 * 240}),
    'attention layer': (
        nn.MultiheadAttention(8, 2, batch_first=True),
        (3, 5, 8),
        {'linear': 15 * (24 + 8) * (8 + 1), 'matmul': 2 * 3 * 5 * 5 * 8},
    ),
    'no products': (
        nn.Sequential(nn.GELU(), nn.AvgPool2d(2), nn.Softmax(1), nn.Upsample(scale_factor=2)),
        (1, 4, 6, 6),
        {},
    ),
}


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('name', LAYERS)
def test_a_layer_costs_what_its_formula_says(name, device):
    layer, size, expected = LAYERS[name]
    layer = layer.to('meta').to_empty(device=device).eval()
    inputs = [torch.zeros(size, device=device)] * (3 if isinstance(layer, nn.MultiheadAttention) else 1)
    assert count(layer, *inputs) == expected


PRODUCTS = {
    'of activations': (lambda w, x: x @ x.transpose(-1, -2), {'matmul': 2 * 3 * 3 * 4}),
    'with a weight': (lambda w, x: x @ w.t(), {'linear': 2 * 3 * 4 * 4}),
    'with a weight, by einsum': (lambda w, x: torch.einsum('bnc,dc->bnd', x, w), {'linear': 2 * 3 * 4 * 4}),
    'with a vector': (lambda w, x: x[0] @ x[0, 0], {'matmul': 3 * 4}),
    'sum and product': (lambda w, x: torch.addmm(x[0], x[0], w), {'linear': 3 * 4 * (4 + 1)}),
    'linear with a computed weight': (lambda w, x: F.linear(x, 2 * w), {'matmul': 2 * 3 * 4 * 4}),
    'attention': (lambda w, x: F.scaled_dot_product_attention(x, x, x[..., :2]), {'matmul': 2 * 3 * 3 * (4 + 2)}),
    'computed kernel': (lambda w, x: F.conv1d(x, (2 * w)[:, :3, None]), {'dynamic_conv': 2 * 4 * 4 * 3}),
    'element-wise': (lambda w, x: x * w[0] + x, {}),
}


@pytest.mark.parametrize('name', PRODUCTS)
def test_a_product_is_of_a_layer_only_where_a_learned_weight_takes_part(name):
    function, expected = PRODUCTS[name]
    assert count(Function(function, 4, 4), torch.zeros(2, 3, 4)) == expected


def test_attention_in_one_operator_costs_what_its_two_products_cost():
    q, k, v = torch.zeros(2, 3, 7, 4), torch.zeros(2, 3, 5, 4), torch.zeros(2, 3, 5, 6)
    fused = count(Function(lambda w, *qkv: F.scaled_dot_product_attention(*qkv), 1), q, k, v)
    apart = count(Function(lambda w, q, k, v: (q @ k.transpose(-1, -2)).softmax(-1) @ v, 1), q, k, v)
    assert fused == apart == {'matmul': 2 * 3 * 7 * 5 * (4 + 6)}


@pytest.mark.parametrize('size', [(2, 3, 64, 96), PADDED])
def test_the_two_super_token_paths_cost_the_same(size):
    """But for the oracle's way of gathering neighbours: convolutions with a constant kernel."""
    model = tiny(n_iter=2).eval()
    image = torch.zeros(size)
    fast = count(model, image)
    with use_ops(naive):
        slow = count(model, image)
    assert slow.pop('dynamic_conv') > 0
    assert fast == slow
    assert fast['matmul'] > 0


def test_the_device_does_not_matter():
    model, image = tiny().eval(), torch.zeros(PADDED)
    on_cpu = count_macs(model, lambda: model(image))
    assert count_macs(model.to('meta'), lambda: model(image.to('meta'))) == on_cpu


def test_pytorchs_own_counter_agrees():
    """It knows neither biases nor norms nor CPU's fused attention, so the oracle runs and there are no biases."""
    model, image = tiny().eval(), torch.zeros(PADDED)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.bias = None
    with use_ops(naive):
        ours = count(model, image)
        with torch.no_grad(), FlopCounterMode(display=False) as theirs:
            model(image)
    ours.pop('norm')
    assert 2 * sum(ours.values()) == theirs.get_total_flops()


def test_the_products_of_super_token_attention_are_those_of_the_paper():
    """Stage 1: association, aggregation and upsampling cost nine products per token and channel, attention n² twice."""
    model = STViT(TINY, out_indices=0).eval()
    c = TINY['channels'][0]
    tokens, super_tokens = 24 * 32, 6 * 8  # 90×118 pixels are 23×30 tokens, padded to cells of 4×4
    assert count(model, torch.zeros(PADDED))['matmul'] == 3 * 9 * tokens * c + 2 * super_tokens**2 * c


def test_counts_belong_to_the_innermost_module():
    model = tiny().eval()
    macs = count_macs(model, lambda: model(torch.zeros(1, 3, 64, 64)))
    block = {name.removeprefix('stages.2.1.'): dict(kinds) for name, kinds in macs.items() if 'stages.2.1.' in name}
    tokens, c = 16, TINY['channels'][2]
    assert block == {
        'pos_embed': {'conv': tokens * c * (9 + 1)},
        'norm1': {'norm': 2 * tokens * c},
        'attn': {'matmul': 2 * tokens**2 * c},
        'attn.qkv': {'linear': tokens * 3 * c * (c + 1)},
        'attn.proj': {'linear': tokens * c * (c + 1)},
        'norm2': {'norm': 2 * tokens * c},
        'ffn.fc1': {'linear': tokens * 4 * c * (c + 1)},
        'ffn.dwconv': {'conv': tokens * 4 * c * (9 + 1)},
        'ffn.fc2': {'linear': tokens * c * (4 * c + 1)},
    }
    assert '' not in macs


def test_nothing_is_left_behind_even_after_an_error():
    model = tiny().eval()
    with pytest.raises(ValueError, match='16×16'):
        count_macs(model, lambda: model(torch.zeros(1, 3, 16, 16)))
    assert not [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert torch.backends.mha.get_fastpath_enabled()
    assert model(torch.zeros(1, 3, 64, 64))[0].shape == (1, 8, 16, 16)
