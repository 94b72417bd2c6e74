"""The published algorithm on our weights has STViT's own values; test_golden.py compares it with the golden tensors."""

import pytest
import torch

from mmstvit.models.published import PublishedSTViT

from ..helpers import assert_near, cotangent_loss, gradients, image, tiny
from ..test_golden import TOLERANCE_FP64

SIZE = (2, 3, 75, 93)  # padded cells in both stages that have cells


@pytest.mark.parametrize('options', [{'n_iter': 2}, {'drop_path_rate': 0.5}, {'norm_eval': True}, {'frozen_stages': 2}])
def test_equals_stvit_in_training(options):
    """Features, gradients and BatchNorm statistics, with equal weights and random numbers."""
    results = []
    for wrap in (lambda model: model, PublishedSTViT):
        model = tiny(**options).double()
        forward = wrap(model).train()
        torch.manual_seed(0)
        features = forward(image(*SIZE, dtype=torch.float64))
        cotangent_loss(features).backward()
        grads = {name: grad for name, grad in gradients(model).items() if grad is not None}
        if not options.get('norm_eval'):  # a bias before batch statistics has no gradient but rounding errors
            grads = {name: grad for name, grad in grads.items() if not name.endswith('conv.bias')}
        buffers = {name: buffer.double() for name, buffer in model.named_buffers()}
        results.append((dict(enumerate(features)), grads, buffers))
    for expected, actual in zip(*results, strict=True):
        assert_near(actual, expected, TOLERANCE_FP64)
