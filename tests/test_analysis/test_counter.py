"""Multiply-accumulates against formulas, and against PyTorch's own counter."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmstvit import STViT
from mmstvit.analysis import count_macs

from ..helpers import TINY, tiny

PADDED = (1, 3, 90, 118)  # cells of 4 and of 2 do not divide the maps of the first two stages


def count(module: nn.Module, *sizes: tuple[int, ...]) -> dict[str, int]:
    """Multiply-accumulates of a module by kind, without the kinds that do not occur."""
    module = module.to('meta').eval()
    inputs = [torch.zeros(size, device='meta') for size in sizes]
    return {kind: n for kind, n in count_macs(module, lambda: module(*inputs))[''].items() if n}


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


LAYERS = {
    'linear': (nn.Linear(5, 7), [(2, 3, 4, 5)], {'linear': 24 * 7 * (5 + 1)}),
    'convolution': (nn.Conv2d(4, 6, 3, 2, 1), [(2, 4, 9, 8)], {'conv': 2 * 5 * 4 * 6 * (4 * 9 + 1)}),
    'depthwise': (nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False), [(1, 4, 5, 6)], {'conv': 30 * 4 * 9}),
    'transposed': (nn.ConvTranspose2d(4, 6, 2, 2), [(1, 4, 5, 6)], {'conv': 30 * 4 * 6 * 4 + 120 * 6}),
    'BatchNorm': (nn.BatchNorm2d(4), [(2, 4, 5, 6)], {'norm': 2 * 240}),
    'SyncBatchNorm': (nn.SyncBatchNorm(4), [(2, 4, 5, 6)], {'norm': 2 * 240}),
    'LayerNorm': (nn.LayerNorm(6), [(2, 4, 5, 6)], {'norm': 2 * 240}),
    'GroupNorm': (nn.GroupNorm(2, 4), [(2, 4, 5, 6)], {'norm': 2 * 240}),
    'attention layer': (
        nn.MultiheadAttention(8, 2, batch_first=True),
        [(3, 5, 8)] * 3,
        {'linear': 15 * (24 + 8) * (8 + 1), 'matmul': 2 * 3 * 5 * 5 * 8},
    ),
    'product': (Function(lambda x: x @ x.transpose(-1, -2)), [(2, 3, 4)], {'matmul': 2 * 3 * 3 * 4}),
    'fused attention': (
        Function(F.scaled_dot_product_attention),
        [(2, 3, 7, 4), (2, 3, 5, 4), (2, 3, 5, 6)],
        {'matmul': 2 * 3 * 7 * 5 * (4 + 6)},
    ),
    'no products': (
        nn.Sequential(nn.GELU(), nn.AvgPool2d(2), nn.Softmax(1), nn.Upsample(scale_factor=2)),
        [(1, 4, 6, 6)],
        {},
    ),
}


@pytest.mark.parametrize('name', LAYERS)
def test_a_layer_costs_what_its_formula_says(name):
    layer, sizes, expected = LAYERS[name]
    assert count(layer, *sizes) == expected


def test_pytorchs_own_counter_agrees():
    """It does not know biases and norms."""
    model = tiny().eval().to('meta')
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.bias = None
    ours = count(model, PADDED)
    with torch.no_grad(), FlopCounterMode(display=False) as theirs:
        model(torch.zeros(PADDED, device='meta'))
    ours.pop('norm')
    assert 2 * sum(ours.values()) == theirs.get_total_flops()


def test_super_token_attention_costs_what_the_paper_says():
    """Stage 1: association, update and upsampling take nine products per token and channel, attention n² twice."""
    c = TINY['channels'][0]
    tokens, super_tokens = 24 * 32, 6 * 8  # 90×118 pixels are 23×30 tokens, padded to cells of 4×4
    assert count(STViT(TINY, out_indices=0), PADDED)['matmul'] == 3 * 9 * tokens * c + 2 * super_tokens**2 * c


def test_counts_belong_to_modules_and_add_up():
    model = tiny().eval().to('meta')
    macs = count_macs(model, lambda: model(torch.zeros(1, 3, 64, 64, device='meta')))
    tokens, c = 16, TINY['channels'][2]
    qkv, proj = tokens * 3 * c * (c + 1), tokens * c * (c + 1)
    ffn = tokens * 4 * c * (c + 1) + tokens * c * (4 * c + 1)
    block = {name.removeprefix('stages.2.1.'): +kinds for name, kinds in macs.items() if 'stages.2.1.' in name}
    assert block['attn'] == {'matmul': 2 * tokens**2 * c, 'linear': qkv + proj}
    assert block['attn.qkv'] == {'linear': qkv} and block['attn.proj'] == {'linear': proj}
    assert block['pos_embed'] == {'conv': tokens * c * (9 + 1)}
    assert block['ffn'] == {'linear': ffn, 'conv': tokens * 4 * c * (9 + 1)}
    assert block['ffn'] == block['ffn.fc1'] + block['ffn.dwconv'] + block['ffn.fc2']
    assert block['ffn.fc1'] == {'linear': tokens * 4 * c * (c + 1)}
    assert block['ffn.fc2'] == {'linear': tokens * c * (4 * c + 1)}
    assert block['norm1'] == block['norm2'] == {'norm': 2 * tokens * c}
    # A ModuleList is never called, and has the sum of its parts.
    assert macs['stages.2'] == macs['stages.2.0'] + macs['stages.2.1']
    assert macs[''] == macs['patch_embed'] + macs['downsamples'] + macs['stages']
