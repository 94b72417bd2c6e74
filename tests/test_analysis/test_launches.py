"""Operators, launches and bytes of small modules against counts by hand."""

import pytest
import torch
from torch import Tensor, nn

from mmstvit.analysis import LaunchCount, count_launches


class Layers(nn.Sequential):
    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (super().forward(x),)


SIZE = (2, 3, 4, 4)  # 96 numbers
CASES = {
    # Reads and writes 96 numbers of 4 bytes; backward reads two maps and writes one.
    'inference': ([nn.GELU()], torch.float32, False, LaunchCount(1, 1, 2 * 96 * 4)),
    'views': ([nn.Flatten(0, 1), nn.Unflatten(0, (2, 3))], torch.float32, False, LaunchCount(0, 0, 0)),
    # Backward: image without gradient, so the gradients of 6×3 weights and 6 biases alone.
    'convolution': (
        [nn.Conv2d(3, 6, 1)],
        torch.float32,
        True,
        LaunchCount(2, 2 + 3, 4 * ((96 + 18 + 6 + 192) + (192 + 96 + 18 + 18 + 6))),
    ),
    # Casts of image, weight and bias, the product, and casts of both gradients, which arrive in bf16.
    'autocast': (
        [nn.Conv2d(3, 6, 1)],
        torch.bfloat16,
        True,
        LaunchCount(
            7,
            (3 + 2) + (3 + 2),
            6 * (96 + 18 + 6) + 2 * (96 + 18 + 6 + 192) + 2 * (192 + 96 + 18 + 18 + 6) + 6 * (18 + 6),
        ),
    ),
    # On CUDA in fp32: the map in bf16 is cast to it, and the result stays in fp32. Weights are read, too.
    'layer norm under autocast': (
        [nn.Conv2d(3, 6, 1, bias=False), nn.LayerNorm(4)],
        torch.bfloat16,
        False,
        LaunchCount(5, 5, 6 * (96 + 18) + 2 * (96 + 18 + 192) + 6 * 192 + 4 * (192 + 4 + 4 + 192 + 2 * 48)),
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_counts(case):
    layers, dtype, train, expected = CASES[case]
    model = Layers(*layers).train(train)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_launches(model, SIZE, dtype, train) == expected
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_multi_tensor_operators_start_few_kernels():
    class Copy(nn.Module):
        def forward(self, x: Tensor) -> list[Tensor]:
            copies = [torch.empty_like(x) for _ in range(65)]
            torch._foreach_copy_(copies, [x] * 65)
            return copies

    assert count_launches(Copy(), SIZE) == LaunchCount(1, 2, 65 * 96 * 4 * 3)


def test_kernels_of_other_operators():
    assert count_launches(Layers(nn.GELU()), SIZE, launches={'aten::gelu': 5}).launches == 5
