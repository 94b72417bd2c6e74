"""The published algorithm on our weights: the golden tensors, and STViT's own values."""

import pytest
import torch

from mmstvit.models.published import PublishedSTViT

from ..helpers import assert_near, cotangent_loss, gradients, image, relative_error, tiny
from ..test_golden import CASES, TOLERANCE, TOLERANCE_FP64, build, convert_official, golden, vanishing, without

SIZE = (2, 3, 75, 93)  # padded cells in both stages that have cells


@pytest.mark.parametrize('case', CASES)
def test_equals_the_golden_tensors(case):
    data = golden(case)
    model = build(data['config'])
    model.load_state_dict(convert_official(data['state_dict']))
    model.train(data['train'])
    x = data['input'].clone().requires_grad_()
    features = PublishedSTViT(model['backbone'])(x)
    logits = model['head']['fc'](model['neck'](features)[0])
    assert_near(dict(enumerate(features)), dict(enumerate(data['features'])), TOLERANCE)
    sum((y * g).sum() for y, g in zip([*features, logits], data['cotangents'], strict=True)).backward()
    assert relative_error(x.grad, data['input_grad']) <= TOLERANCE
    expected = without(convert_official(data['param_grads']), vanishing(case))
    assert_near(without(gradients(model), vanishing(case)), expected, TOLERANCE)


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
