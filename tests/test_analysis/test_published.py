"""The published algorithm on our weights: the release's tensors and STViT's own."""

import pytest
import torch
from torch import Tensor

from mmstvit.analysis import PublishedSTViT

from ..helpers import (
    assert_equal,
    assert_near,
    cotangent_loss,
    gradients,
    image,
    relative_error,
    tiny,
)
from ..test_golden import CASES, TOLERANCE, TOLERANCE_FP64, build, convert_official, golden, vanishing, without

# Odd sides: padded cells in both stages that have cells.
SIZE = (2, 3, 75, 93)


def compute(model, forward, size=SIZE) -> tuple[dict[str, Tensor], dict[str, Tensor | None], Tensor]:
    """Features, gradients of the parameters and gradient of the image, always with the same random numbers."""
    torch.manual_seed(0)
    model.zero_grad()
    x = image(*size, dtype=torch.float64).requires_grad_()
    features = forward(x)
    cotangent_loss(features).backward()
    return {str(i): y.detach() for i, y in enumerate(features)}, gradients(model), x.grad


@pytest.mark.parametrize('case', CASES)
def test_it_is_the_release(case):
    data = golden(case)
    model = build(data['config'])
    model.load_state_dict(convert_official(data['state_dict']))
    model.train(data['train'])
    x = data['input'].clone().requires_grad_()
    features = PublishedSTViT(model['backbone'])(x)
    logits = model['head']['fc'](model['neck'](features)[0])
    assert_near(dict(enumerate(features)), dict(enumerate(data['features'])), TOLERANCE)
    loss = sum((y * g).sum() for y, g in zip([*features, logits], data['cotangents'], strict=True))
    loss.backward()
    assert relative_error(x.grad, data['input_grad']) <= TOLERANCE
    expected = without(convert_official(data['param_grads']), vanishing(case))
    assert_near(without(gradients(model), vanishing(case)), expected, TOLERANCE)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    'options', [{}, {'n_iter': 2}, {'drop_path_rate': 0.5}, {'norm_eval': True}, {'frozen_stages': 2}]
)
def test_it_is_our_model_in_another_way(options, train):
    """Twins with equal weights and random numbers: features, gradients and BatchNorm statistics."""
    ours, theirs = (tiny(**options).double().train(train) for _ in range(2))
    published = PublishedSTViT(theirs).train(train)
    expected, actual = compute(ours, ours), compute(theirs, published)
    assert_near(actual[0], expected[0], TOLERANCE_FP64)
    assert relative_error(actual[2], expected[2]) <= TOLERANCE_FP64
    learned = {name for name, grad in expected[1].items() if grad is not None}
    assert learned == {name for name, grad in actual[1].items() if grad is not None}
    # A bias before batch statistics has no gradient but rounding errors.
    if train and not options.get('norm_eval'):
        learned -= {f'downsamples.{i}.conv.bias' for i in range(3)}
    assert_near(*({name: grads[name] for name in learned} for grads in (actual[1], expected[1])), TOLERANCE_FP64)
    assert_near(
        *({name: buffer.double() for name, buffer in model.named_buffers()} for model in (theirs, ours)),
        TOLERANCE_FP64,
    )


def test_dropout_drops():
    model = tiny(drop_rate=0.3, attn_drop_rate=0.3).double().train()
    published = PublishedSTViT(model)
    x = image(*SIZE, dtype=torch.float64)
    assert not torch.equal(published(x)[0], published(x)[0])
    published.eval()
    assert not model.training
    assert_equal(dict(enumerate(published(x))), dict(enumerate(published(x))))


def test_maps_are_contiguous_nchw_whatever_the_image_is_like():
    published = PublishedSTViT(tiny(out_indices=(1, 3)).eval())
    x = image(2, 3, 64, 96)
    maps = published(x.contiguous(memory_format=torch.channels_last))
    assert [tuple(y.shape) for y in maps] == [(2, 12, 8, 12), (2, 24, 2, 3)]
    assert all(y.is_contiguous() for y in maps)
    assert_near(dict(enumerate(maps)), dict(enumerate(published(x))), TOLERANCE)


def test_the_weights_are_those_of_the_model():
    model = tiny()
    published = PublishedSTViT(model)
    assert [id(p) for p in published.parameters()] == [id(p) for p in model.parameters()]
    assert [id(b) for b in published.buffers()] == [id(b) for b in model.buffers()]
