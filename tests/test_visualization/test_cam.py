"""Target layers for class activation maps."""

import torch

from ..helpers import image, tiny


def test_norm2_sees_a_map_with_channels_first_and_a_gradient():
    model = tiny().eval()
    maps = []
    for blocks in model.stages:
        blocks[-1].norm2.register_forward_hook(lambda module, inputs, output: maps.append(output))
    outputs = model(image(1, 3, 64, 96))
    gradients = torch.autograd.grad(outputs[-1].sum(), maps)
    assert [tuple(x.shape) for x in maps] == [tuple(x.shape) for x in outputs]
    assert all(gradient.abs().max() > 0 for gradient in gradients)
