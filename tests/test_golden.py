"""The model against tensors that the official implementation produced."""

import functools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from mmstvit import STViT, STViTNeck
from mmstvit.checkpoint import convert_official
from mmstvit.models.published import PublishedSTViT
from mmstvit.ops import use_backend

from .helpers import DATA, assert_equal, assert_near, batch_norms, gradients, relative_error

CASES = ['divisible', 'padded_layerscale', 'two_iterations', 'one_supertoken', 'train_mode']
BACKENDS = ['cpu', 'torch', 'naive', 'published']  # the last is PublishedSTViT on our weights
TOLERANCE = 1e-5
TOLERANCE_FP64 = 1e-12


@dataclass
class Run:
    """Results of one forward and backward pass."""

    outputs: dict[str, Tensor]
    input_grad: Tensor
    param_grads: dict[str, Tensor]
    buffers_before: dict[str, Tensor]
    model: nn.ModuleDict


@functools.cache
def golden(case: str) -> dict:
    return torch.load(DATA / f'{case}.pt', weights_only=True)


def build(config: dict) -> nn.ModuleDict:
    """Backbone, neck and head under the names of an mmpretrain classifier."""
    arch = {
        'channels': config['embed_dim'],
        'depths': config['depths'],
        'num_heads': config['num_heads'],
        'stoken_size': config.get('stoken_size', (8, 4, 1, 1)),
        'layer_scale_init_value': [1e-6 if on else 0.0 for on in config['layerscale']],
    }
    return nn.ModuleDict(
        {
            'backbone': STViT(arch, n_iter=config.get('n_iter', 1)),
            'neck': STViTNeck(config['embed_dim'][-1], config['projection']),
            'head': nn.ModuleDict({'fc': nn.Linear(config['projection'], config['num_classes'])}),
        }
    )


@functools.cache
def run(case: str, backend: str, dtype: torch.dtype = torch.float32, device: str = 'cpu') -> Run:
    data = golden(case)
    model = build(data['config'])
    model.load_state_dict(convert_official(data['state_dict']))
    model.to(device, dtype).train(data['train'])
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    x = data['input'].to(device, dtype, copy=True).requires_grad_()
    backbone = PublishedSTViT(model['backbone']) if backend == 'published' else model['backbone']
    with use_backend('auto' if backend == 'published' else backend), torch.backends.cudnn.flags(allow_tf32=False):
        features = backbone(x)
        logits = model['head']['fc'](model['neck'](features)[0])
        outputs = [*features, logits]
        loss = sum((y * g.to(x)).sum() for y, g in zip(outputs, data['cotangents'], strict=True))
        loss.backward()
    outputs = {f'features.{i}': y.detach() for i, y in enumerate(features)}
    outputs |= {'logits': logits.detach(), 'loss': loss.detach()}
    return Run(outputs, x.grad, gradients(model), before, model)


def vanishing(case: str) -> set[str]:
    """Biases directly before a BatchNorm with batch statistics: the mean takes them out, their gradient is zero."""
    if not golden(case)['train']:
        return set()
    return {f'backbone.downsamples.{i}.conv.bias' for i in range(3)} | {'neck.conv.bias'}


def without(grads: dict[str, Tensor], names: set[str]) -> dict[str, Tensor]:
    assert names <= set(grads)
    return {name: grad for name, grad in grads.items() if name not in names}


def expect(case: str) -> dict[str, Tensor]:
    """Return all that the official implementation computed: outputs and gradients."""
    data = golden(case)
    expected = {f'features.{i}': y for i, y in enumerate(data['features'])}
    expected |= {'logits': data['logits'], 'loss': data['loss'], 'gradient of the input': data['input_grad']}
    return expected | without(convert_official(data['param_grads']), vanishing(case))


def collect(case: str, result: Run) -> dict[str, Tensor]:
    computed = {**result.outputs, 'gradient of the input': result.input_grad}
    computed |= without(result.param_grads, vanishing(case))
    return {name: tensor.cpu() for name, tensor in computed.items()}


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('case', CASES)
def test_outputs_and_gradients(case, backend):
    assert_near(collect(case, run(case, backend)), expect(case), TOLERANCE)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA GPU')
@pytest.mark.parametrize('backend', ['torch', 'triton'])
@pytest.mark.parametrize('case', CASES)
def test_outputs_and_gradients_on_a_gpu(case, backend):
    assert_near(collect(case, run(case, backend, device='cuda')), expect(case), TOLERANCE)


@pytest.mark.parametrize('backend', BACKENDS)
def test_bias_gradient_before_batch_norm_vanishes(backend):
    expected = convert_official(golden('train_mode')['param_grads'])
    for grads in (run('train_mode', backend).param_grads, expected):
        for name in vanishing('train_mode'):
            weight = grads[name.replace('bias', 'weight')]
            assert grads[name].abs().max() < TOLERANCE * weight.abs().max(), name


@pytest.mark.parametrize('backend', BACKENDS)
def test_batch_norm_statistics_follow_the_batch_in_training(backend):
    result = run('train_mode', backend)
    for name, norm in batch_norms(result.model).items():
        assert norm.num_batches_tracked == result.buffers_before[f'{name}.num_batches_tracked'] + 1
        assert not torch.equal(norm.running_mean, result.buffers_before[f'{name}.running_mean']), name
        assert not torch.equal(norm.running_var, result.buffers_before[f'{name}.running_var']), name


def test_batch_norm_statistics_stay_in_evaluation():
    result = run('divisible', 'cpu')
    assert_equal(dict(result.model.named_buffers()), result.buffers_before)


@pytest.mark.parametrize('case', CASES)
def test_torch_equals_naive_in_double_precision(case):
    fast, naive = (run(case, backend, torch.float64) for backend in ('torch', 'naive'))
    assert_near(fast.outputs, naive.outputs, TOLERANCE_FP64)
    assert relative_error(fast.input_grad, naive.input_grad) <= TOLERANCE_FP64
    skip = vanishing(case)
    assert_near(without(fast.param_grads, skip), without(naive.param_grads, skip), TOLERANCE_FP64)
    for name in skip:
        weight = naive.param_grads[name.replace('bias', 'weight')].abs().max()
        assert max(fast.param_grads[name].abs().max(), naive.param_grads[name].abs().max()) < TOLERANCE_FP64 * weight
