"""Dropout and stochastic depth of the block and its layers in training."""

import pytest
import torch
from torch import Tensor, nn

from mmstvit.layers import STViTBlock, STViTFFN, SuperTokenAttention

from ..helpers import image


def zeros(x: Tensor) -> float:
    """Return the share of entries that are exactly zero."""
    return (x == 0).float().mean().item()


def test_ffn_drops_after_the_activation_and_at_the_end():
    torch.manual_seed(0)
    ffn = STViTFFN(8, drop_rate=0.3).train()
    hidden = []
    ffn.dwconv.register_forward_pre_hook(lambda _, args: hidden.append(args[0]))
    out = ffn(image(2, 16, 16, 8))
    assert zeros(hidden[0]) == pytest.approx(0.3, abs=0.03)
    assert zeros(out) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize('watch', ['a hook of a layer', 'a hook of all modules', 'a replaced forward'])
def test_who_watches_the_layers_of_an_ffn_sees_their_calls(watch):
    ffn, x, seen = STViTFFN(8).eval(), image(2, 16, 16, 8), []
    with torch.no_grad():
        expected = ffn(x)
        layers = [ffn.fc1, ffn.dwconv, ffn.fc2]
        if watch == 'a hook of all modules':
            handles = [nn.modules.module.register_module_forward_hook(lambda layer, *_: seen.append(layer))]
        elif watch == 'a hook of a layer':
            handles = [layer.register_forward_hook(lambda layer, *_: seen.append(layer)) for layer in layers]
        else:
            handles = []
            for layer in layers:
                layer.forward = lambda x, layer=layer: seen.append(layer) or type(layer).forward(layer, x)
        actual = ffn(x)
        for handle in handles:
            handle.remove()
    assert [layer for layer in seen if layer in layers] == layers
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('stoken_size', [1, 4])
def test_attention_drops_after_the_projection(stoken_size):
    torch.manual_seed(0)
    attention = SuperTokenAttention(8, 2, stoken_size, proj_drop_rate=0.3).train()
    tokens = attention.attend(attention.qkv(image(2, 16, 16, 8)))
    assert zeros(tokens) == pytest.approx(0.3, abs=0.03)
    assert zeros(attention.eval().attend(attention.qkv(image(2, 16, 16, 8)))) == 0


def test_drop_path_takes_each_branch_out_of_single_images():
    torch.manual_seed(0)
    block = STViTBlock(8, 2, 4).train()
    block.norm2.eval()

    def norm(x: Tensor) -> Tensor:
        return block.norm2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    x, factors = image(4, 8, 8, 8), torch.tensor([[0.0, 0, 2, 2], [0, 2, 0, 2]])
    with torch.no_grad():
        base = block.pos_embed(x)
        attention = block.attn(block.norm1(base))
        without_attention = base + 2 * block.ffn(norm(base))  # kept branches are scaled by 1 / 0.5
        without_ffn = base + 2 * attention
        both = without_ffn + 2 * block.ffn(norm(without_ffn))
        out = block(x, factors)
    expected = [base, without_attention, without_ffn, both]
    torch.testing.assert_close(out, torch.stack([maps[i] for i, maps in enumerate(expected)]), rtol=0, atol=1e-5)
