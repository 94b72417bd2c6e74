"""Norms against those of PyTorch."""

import pytest
import torch
from torch import nn

from mmstvit.layers import count_batches
from mmstvit.layers.norm import BatchNorm2d, LayerNorm

from ..helpers import assert_equal, image, tiny


@pytest.mark.parametrize('momentum', [0.1, None])
@pytest.mark.parametrize('train', [True, False])
def test_batch_norm(momentum, train):
    norm, expected = BatchNorm2d(3, momentum=momentum).train(train), nn.BatchNorm2d(3, momentum=momentum).train(train)
    for seed in range(3):
        x = image(2, 3, 4, 5, seed=seed)
        count_batches(norm)
        assert torch.equal(norm(x), expected(x))
    assert_equal(norm.state_dict(), expected.state_dict())


def test_frozen_norms_count_no_batches():
    model = tiny(frozen_stages=2).train()
    model(image(2, 3, 64, 64))
    counts = {name: count.item() for name, count in model.named_buffers() if name.endswith('num_batches_tracked')}
    frozen = ('patch_embed', 'stages.0', 'stages.1', 'downsamples.0')
    assert counts == {name: int(not name.startswith(frozen)) for name in counts}


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_layer_norm_keeps_the_dtype_of_the_map(dtype):
    norm, x = LayerNorm(6), image(2, 3, 6).to(dtype)
    nn.init.normal_(norm.weight)
    expected = nn.functional.layer_norm(x.double(), (6,), norm.weight.double(), norm.bias.double())
    with torch.autocast('cpu', torch.bfloat16):
        out = norm(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=1e-6 if dtype == torch.float32 else 0.01, atol=1e-3)
