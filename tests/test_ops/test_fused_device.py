"""The fused kernels against the reference in fp64: values and every gradient.

Runs on a GPU, and on a CPU under Triton's interpreter, where test_triton.py starts it.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmstvit.models import STViT
from mmstvit.ops import naive, use_backend

from ..helpers import TINY, assert_equal, assert_near, cotangent_loss, gradients, image, tiny
from .device import DEVICE, INTERPRETED, TOLERANCE, on_gpu

# isort: split
# Not sorted before device.py, which skips this file where there is no Triton.
from mmstvit.ops.triton import fused

pytestmark = pytest.mark.gpu
# batch, height, width, channels
SIZES = [(2, 7, 7, 32), (1, 9, 14, 48), (1, 1, 1, 5), (2, 1, 17, 70), (1, 31, 2, 3), (1, 16, 70, 6)]
CASES = [
    pytest.param(size, dtype, id=f'{"-".join(map(str, size))}-{dtype}'.replace('torch.', ''), marks=marks)
    for dtype in TOLERANCE
    for size in SIZES
    for marks in [() if dtype == torch.float32 or size == (2, 1, 17, 70) else pytest.mark.long]
]
cases = pytest.mark.parametrize(('size', 'dtype'), CASES)


def drawn(*size: int, seed: int = 0) -> Tensor:
    return image(*size, seed=seed, dtype=torch.float64)


def results(function: Callable, tensors: dict[str, Tensor], dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """Run a function; return its results and all gradients in fp64 on the CPU."""
    # Statistics of depth and layer scales stay in fp32, as under autocast.
    kept = {'factor', 'gamma'} if dtype != torch.float64 else ()
    inputs = {
        name: tensor.to(device, torch.float32 if name in kept else dtype).requires_grad_(name != 'factor')
        for name, tensor in tensors.items()
    }
    outputs = function(**inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    cotangents = [drawn(*out.shape, seed=9 + i).to(device, out.dtype) for i, out in enumerate(outputs)]
    learned = {name: tensor for name, tensor in inputs.items() if tensor.requires_grad}
    grads = torch.autograd.grad(outputs, list(learned.values()), cotangents)
    for name, grad in zip(learned, grads, strict=True):
        assert grad.dtype == learned[name].dtype and grad.shape == learned[name].shape
    found = {f'out {i}': out for i, out in enumerate(outputs)} | dict(zip(learned, grads, strict=True))
    return {name: tensor.detach().double().cpu() for name, tensor in found.items()}


def rounded(tensors: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype).double() for name, tensor in tensors.items()}


def compare(name: str, tensors: dict[str, Tensor], dtype: torch.dtype, tolerance: float = 1, **options: object) -> None:
    actual = results(lambda **t: getattr(fused, name)(**t, **options), tensors, dtype, DEVICE)
    expected = results(lambda **t: getattr(naive, name)(**t, **options), rounded(tensors, dtype), torch.float64, 'cpu')
    assert_near(actual, expected, TOLERANCE[dtype] * tolerance)


def conv(c: int) -> dict[str, Tensor]:
    return {'weight': drawn(c, 1, 3, 3, seed=1) / 3, 'bias': drawn(c, seed=2)}


@cases
def test_residual_dwconv(size, dtype):
    compare('residual_dwconv', {'x': drawn(*size), **conv(size[3])}, dtype)


@cases
def test_residual_dwconv_norm(size, dtype):
    c = size[3]
    norm = {'gamma': drawn(c, seed=3), 'beta': drawn(c, seed=4)}
    compare('residual_dwconv_norm', {'x': drawn(*size), **conv(c), **norm}, dtype, 4, eps=1e-6)


@cases
@pytest.mark.parametrize('residual', [True, False])
def test_conv_ffn(size, dtype, residual):
    c, hidden = size[3], 2 * size[3] + 1
    tensors = {
        'x': drawn(*size), 'w1': drawn(hidden, c, seed=1) / c**0.5, 'b1': drawn(hidden, seed=2),
        'wd': drawn(hidden, 1, 3, 3, seed=3) / 3, 'bd': drawn(hidden, seed=4),
        'w2': drawn(c, hidden, seed=5) / hidden**0.5, 'b2': drawn(c, seed=6),
    }  # fmt: skip
    compare('conv_ffn', tensors, dtype, 4, residual=residual)


@cases
@pytest.mark.parametrize('given', [('gamma',), ('factor',), ('gamma', 'factor'), ()])
def test_add_branch(size, dtype, given):
    scales = {'gamma': drawn(size[3], seed=2), 'factor': torch.tensor([0.0, 1.25])[-size[0] :].double()}
    tensors = {'x': drawn(*size), 'branch': drawn(*size, seed=1), **{name: scales[name] for name in given}}
    compare('add_branch', tensors, dtype)


def test_strides_and_empty_batches():
    x, weights = drawn(2, 5, 4, 6).float().to(DEVICE), {k: v.float().to(DEVICE) for k, v in conv(6).items()}
    expected = fused.residual_dwconv(x, **weights)
    for view in (x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1), x.repeat(1, 1, 1, 2)[..., 6:]):
        assert not view.is_contiguous()
        assert torch.equal(fused.residual_dwconv(view, **weights), expected)
    empty = x[:0].clone().requires_grad_()
    (grad,) = torch.autograd.grad(fused.residual_dwconv(empty, **weights).sum(), empty)
    assert grad.shape == empty.shape


def run(model: STViT, backend: str, x: Tensor, autocast: bool = False) -> dict[str, Tensor]:
    x = x.to(DEVICE).requires_grad_()
    model.zero_grad()
    torch.manual_seed(0)
    with use_backend(backend), torch.autocast(DEVICE, torch.bfloat16, enabled=autocast):
        features = model.to(DEVICE)(x)
    cotangent_loss([y.float().cpu() for y in features]).backward()
    found = {name: grad for name, grad in gradients(model).items() if not name.endswith('conv.bias')}
    return {**{str(i): y.detach() for i, y in enumerate(features)}, **found, 'image': x.grad}


@pytest.mark.parametrize('options', [{'drop_path_rate': 0.5}, {'with_cp': True}, {'frozen_stages': 1}], ids=str)
def test_model(options):
    """Layer scale, padded cells, stochastic depth, recomputation; without a gradient for frozen weights."""
    model, x = tiny(**options).train(), image(2, 3, 40, 36)
    actual, expected = (
        {name: tensor for name, tensor in run(model, name, x).items() if tensor is not None}
        for name in ('fused', 'torch')
    )
    assert_near(actual, expected, 2e-4)
    assert not options.get('frozen_stages') or not any(name.startswith('stages.0.') for name in actual)


def test_model_under_autocast():
    """Features have the dtypes of the other backends, and errors of theirs."""
    model, x = STViT(TINY).train(), image(2, 3, 40, 36)
    exact = run(model, 'torch', x)
    fused_, torch_ = (run(model, name, x, autocast=True) for name in ('fused', 'torch'))
    for i in range(4):
        name = str(i)
        assert fused_[name].dtype == torch_[name].dtype
        errors = [(y[name].float() - exact[name]).norm() / exact[name].norm() for y in (fused_, torch_)]
        assert errors[0] <= (2 if INTERPRETED else 1.2) * errors[1]  # the interpreter cuts off, too


@on_gpu
def test_repeats_bit_for_bit():
    model, x = tiny().train(), image(2, 3, 40, 36)
    assert_equal(run(model, 'fused', x), run(model, 'fused', x))


def test_opcheck():
    x, c = drawn(2, 5, 3, 6).float().to(DEVICE), {k: v.float().to(DEVICE) for k, v in conv(6).items()}
    gamma, factor = torch.ones(6, device=DEVICE), torch.ones(2, device=DEVICE)
    out, normed, mean, rstd = torch.ops.mmstvit.dwconv_norm(x, c['weight'], c['bias'], gamma, gamma, 1e-6)
    arguments = {
        'dwconv': (x, c['weight'], c['bias'], True),
        'dwconv_backward': (x, x, c['weight'], True, True),
        'dwconv_norm': (x, c['weight'], c['bias'], gamma, gamma, 1e-6),
        'norm_backward': (x, normed, out, mean, rstd, gamma),
        'add_branch': (x, x, gamma, factor),
        'add_branch_backward': (x, x, gamma, None),
    }
    for name, args in arguments.items():
        assert set(torch.library.opcheck(getattr(torch.ops.mmstvit, name).default, args).values()) == {'SUCCESS'}
