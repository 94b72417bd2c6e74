"""The Triton operators against the naive reference in fp64 and the torch backend in the same precision.

Runs on a GPU, and on a CPU under Triton's interpreter, where test_triton.py starts it.
"""

import math
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmstvit.ops import naive, super_token

from ..helpers import assert_equal, assert_near, count_saved_numbers, image, relative_error, unwanted_super_token
from .device import DEVICE, TOLERANCE, on_gpu

# isort: split
# Not sorted before device.py, which skips this file where there is no Triton.
from mmstvit.ops.triton import operators as ops

pytestmark = pytest.mark.gpu
dtypes = pytest.mark.parametrize('dtype', TOLERANCE, ids=lambda dtype: str(dtype).removeprefix('torch.'))

# batch, height, width, channels, stoken_size, n_iter
CASES = [
    (1, 8, 12, 16, 4, 1),  # no padding
    (3, 9, 10, 6, 4, 2),  # padding on both sides, an odd grid
    (1, 3, 2, 8, 4, 1),  # one cell
    (2, 1, 9, 5, 2, 3),  # one row of cells
    (2, 7, 1, 33, 2, 1),  # one column
    (1, 13, 5, 96, 3, 2),
    (1, 9, 5, 192, 4, 1),
    (1, 17, 9, 96, 8, 1),
    (3, 8, 16, 64, 8, 2),
    (1, 7, 11, 3, 5, 1),
    (1, 3, 4, 17, 1, 2),  # every token its own cell
    (1, 11, 10, 7, 9, 2),  # a cell in two tiles
]
cases = pytest.mark.parametrize('case', CASES, ids=lambda case: '-'.join(map(str, case)))


def grid(height: int, width: int, s: int) -> tuple[int, int]:
    return -(-height // s), -(-width // s)


def drawn(*size: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return image(*size, seed=seed, dtype=dtype).to(DEVICE)


def exactly(*tensors: Tensor) -> list[Tensor]:
    return [tensor.detach().double().cpu() for tensor in tensors]


def sample(module: ModuleType, x: Tensor, cotangent: Tensor, s: int, n_iter: int) -> dict[str, Tensor]:
    x = x.detach().requires_grad_()
    tokens, affinity = module.sample_super_tokens(x, s, n_iter)
    assert not affinity.requires_grad
    (grad,) = torch.autograd.grad(tokens, x, cotangent)
    return {'tokens': tokens.detach(), 'affinity': affinity, 'grad': grad}


def upsample(module: ModuleType, tokens: Tensor, affinity: Tensor, cotangent: Tensor) -> dict[str, Tensor]:
    tokens = tokens.detach().requires_grad_()
    x = module.upsample_super_tokens(tokens, affinity, cotangent.shape[1:3])
    (grad,) = torch.autograd.grad(x, tokens, cotangent)
    return {'x': x.detach(), 'grad': grad}


def compare_sampling(x: Tensor, cotangent: Tensor, s: int, n_iter: int) -> None:
    actual = sample(ops, x, cotangent, s, n_iter)
    assert actual['tokens'].dtype == actual['grad'].dtype == x.dtype
    assert actual['affinity'].dtype == torch.float32
    expected = sample(naive, *exactly(x, cotangent), s, n_iter)
    assert_near({k: v.double().cpu() for k, v in actual.items()}, expected, TOLERANCE[x.dtype])
    assert_near(actual, sample(super_token, x, cotangent, s, n_iter), TOLERANCE[x.dtype])


def compare_upsampling(tokens: Tensor, affinity: Tensor, cotangent: Tensor) -> None:
    actual = upsample(ops, tokens, affinity, cotangent)
    assert actual['x'].dtype == actual['grad'].dtype == tokens.dtype
    expected = upsample(naive, *exactly(tokens, affinity, cotangent))
    assert_near({k: v.double().cpu() for k, v in actual.items()}, expected, TOLERANCE[tokens.dtype])
    assert_near(actual, upsample(super_token, tokens, affinity, cotangent), TOLERANCE[tokens.dtype])


def check_case(case: tuple[int, ...], dtype: torch.dtype) -> None:
    b, height, width, c, s, n_iter = case
    h, w = grid(height, width, s)
    x = drawn(b, height, width, c, dtype=dtype)
    compare_sampling(x, drawn(b, h, w, c, seed=1, dtype=dtype), s, n_iter)
    affinity = drawn(b, h, w, s * s, 9, seed=2).softmax(-1)
    compare_upsampling(drawn(b, h, w, c, seed=3, dtype=dtype), affinity, drawn(*x.shape, seed=4, dtype=dtype))


class TestValues:
    @cases
    def test_fp32(self, case):
        check_case(case, torch.float32)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        check_case((2, 9, 10, 6, 4, 2), dtype)
        check_case((1, 8, 17, 33, 8, 1), dtype)

    @pytest.mark.long
    @cases
    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision_everywhere(self, case, dtype):
        check_case(case, dtype)

    def test_confident_association(self):
        """Logits of some hundreds: no overflow, and the winner takes all."""
        x = drawn(1, 9, 10, 64) * 30
        tokens, affinity = ops.sample_super_tokens(x, 4)
        expected = naive.sample_super_tokens(*exactly(x), 4)[1]
        assert tokens.isfinite().all()
        assert (affinity.cpu().argmax(-1) == expected.argmax(-1)).all()
        assert relative_error(affinity.double().cpu(), expected) <= 1e-4  # errors of the logits, in an exponential

    @dtypes
    def test_a_super_token_with_nearly_no_weight(self, dtype):
        """Its gradient divided by its normalizer overflows in fp16."""
        x, cotangent = unwanted_super_token().to(DEVICE, dtype), drawn(1, 3, 3, 16, dtype=dtype) * 10
        actual = sample(ops, x, cotangent, 4, 1)['grad']
        expected = sample(naive, *exactly(x, cotangent), 4, 1)['grad']
        assert relative_error(actual.double().cpu(), expected) <= max(TOLERANCE[dtype], 1e-4)

    def test_normalizer_has_an_epsilon(self):
        """The first of two tokens belongs to its own cell by 2.5e-13 alone, which the epsilon outweighs."""
        x = drawn(1, 1, 2, 1).copy_(torch.tensor([1.0, 30.0]).view(1, 1, 2, 1))
        tokens, _ = ops.sample_super_tokens(x, 1)
        own = math.e / (math.e + math.exp(30) + 7)
        assert tokens[0, 0, 0, 0].item() == pytest.approx(own / (own + 1e-12), rel=1e-4)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_autocast_changes_nothing_here(self, dtype):
        x = drawn(1, 5, 7, 6)
        expected = ops.sample_super_tokens(x, 4)
        expected = (*expected, ops.upsample_super_tokens(*expected, (5, 7)))
        with torch.autocast(DEVICE, dtype):
            actual = ops.sample_super_tokens(x, 4)
            actual = (*actual, ops.upsample_super_tokens(*actual, (5, 7)))
        names = ('tokens', 'affinity', 'x')
        assert_equal(dict(zip(names, actual, strict=True)), dict(zip(names, expected, strict=True)))

    @on_gpu
    def test_repeats_bit_for_bit(self):
        x, cotangent = drawn(2, 17, 19, 40), drawn(2, 5, 5, 40, seed=1)
        assert_equal(sample(ops, x, cotangent, 4, 1), sample(ops, x, cotangent, 4, 1))


def views(b: int, height: int, width: int, c: int) -> dict[str, Tensor]:
    """The same map with other strides."""
    x = drawn(b, height, width, c)
    return {
        'NCHW': x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        'cropped': F.pad(x, (0, 0, 1, 2, 3, 1), value=float('nan'))[:, 3:-1, 1:-2],
        'channel slice': F.pad(x, (1, 2), value=float('nan'))[..., 1:-2],
        'width first': x.transpose(1, 2).contiguous().transpose(1, 2),
    }


class TestMemory:
    @pytest.mark.parametrize('name', ['NCHW', 'cropped', 'channel slice', 'width first'])
    def test_strides(self, name):
        x, view = drawn(2, 5, 3, 6), views(2, 5, 3, 6)[name]
        assert not view.is_contiguous()
        assert torch.equal(view, x)
        cotangent = drawn(2, 2, 1, 6, seed=1)
        assert_equal(sample(ops, view, cotangent, 4, 1), sample(ops, x, cotangent, 4, 1))
        tokens, affinity = drawn(2, 2, 1, 6, seed=2), drawn(2, 2, 1, 16, 9, seed=3)
        assert_equal(upsample(ops, tokens, affinity, view), upsample(ops, tokens, affinity, x))

    def test_expanded(self):
        x, ones = drawn(1, 5, 3, 6).expand(2, 5, 3, 6), torch.ones((), device=DEVICE)
        compare_sampling(x, ones.expand(2, 2, 1, 6), 4, 1)
        affinity = drawn(2, 2, 1, 16, 9, seed=3).softmax(-1)
        compare_upsampling(drawn(1, 2, 1, 6).expand(2, 2, 1, 6), affinity.mT.contiguous().mT, ones.expand(2, 5, 3, 6))

    def test_empty_batch(self):
        x = drawn(0, 9, 10, 6).requires_grad_()
        tokens, affinity = ops.sample_super_tokens(x, 4)
        out = ops.upsample_super_tokens(tokens, affinity, (9, 10))
        out.sum().backward()
        assert (tokens.shape, affinity.shape, out.shape) == ((0, 3, 3, 6), (0, 3, 3, 16, 9), x.grad.shape)

    @pytest.mark.parametrize('dim', [0, 1, 2])
    def test_offsets_beyond_32_bits(self, dim):
        strides = [64, 64, 64, 1]
        size = [3, 2, 2, 16] if dim == 0 else [2, 6, 6, 16]
        strides[dim] = 2**31 // (size[dim] - 1) + 16  # the last entries lie beyond 2³¹
        strides[:3] = [stride + 64 * i if i != dim else stride for i, stride in enumerate(strides[:3])]
        far = torch.empty(2**31 + 4096, dtype=torch.float16, device=DEVICE).as_strided(size, strides)  # unwritten: free
        near = drawn(*size, dtype=torch.float16)
        far.copy_(near)
        tokens, affinity = ops.sample_super_tokens(far, 4)
        expected = ops.sample_super_tokens(near, 4)
        assert torch.equal(tokens, expected[0])
        assert torch.equal(affinity, expected[1])

    def test_only_the_association_is_kept_for_the_backward_pass(self):
        x = drawn(2, 24, 24, 16).requires_grad_()
        with count_saved_numbers() as count:
            tokens, affinity = ops.sample_super_tokens(x, 4)
            ops.upsample_super_tokens(tokens, affinity, (24, 24))
        assert count() == 9 * 2 * 24 * 24 + 2 * 6 * 6


class TestOperators:
    """The operators as PyTorch registers them."""

    def arguments(self) -> dict[str, tuple]:
        affinity = drawn(2, 2, 1, 16, 9, seed=2).softmax(-1)
        x, tokens = drawn(2, 5, 3, 6), drawn(2, 2, 1, 6)
        return {
            'sample_super_tokens': (x, 4, 1),
            'upsample_super_tokens': (tokens, affinity, 5, 3),
            'aggregate': (x, affinity),
        }

    @pytest.mark.parametrize('name', ['sample_super_tokens', 'upsample_super_tokens', 'aggregate'])
    def test_opcheck(self, name):
        result = torch.library.opcheck(getattr(torch.ops.mmstvit, name).default, self.arguments()[name])
        assert set(result.values()) == {'SUCCESS'}

    def test_double_backward(self):
        """Sampling and upsampling are linear for a given association, so only the cotangent gets a second gradient."""
        results = {}
        for name, module in {'triton': ops, 'torch': super_token}.items():
            x = drawn(2, 9, 10, 6).requires_grad_()
            cotangent = drawn(2, 9, 10, 6, seed=1).requires_grad_()
            tokens, affinity = module.sample_super_tokens(x, 4)
            out = module.upsample_super_tokens(tokens, affinity, (9, 10))
            (grad,) = torch.autograd.grad(out, x, cotangent, create_graph=True)
            (second,) = torch.autograd.grad(grad, cotangent, drawn(2, 9, 10, 6, seed=2))
            results[name] = {'grad': grad.detach(), 'second': second}
        assert_near(results['triton'], results['torch'], TOLERANCE[torch.float32])

    @pytest.mark.parametrize('dynamic', [pytest.param(False, marks=pytest.mark.long), True])
    def test_compiles_without_graph_breaks(self, dynamic):
        def layer(x: Tensor) -> Tensor:
            tokens, affinity = ops.sample_super_tokens(x, 4)
            return ops.upsample_super_tokens(tokens.tanh(), affinity, x.shape[1:3])

        torch._dynamo.reset()
        compiled = torch.compile(
            layer, fullgraph=True, dynamic=dynamic, backend='aot_eager' if DEVICE == 'cpu' else 'inductor'
        )
        for size in ((2, 5, 7, 6), (1, 9, 3, 6)):
            results = []
            for function in (compiled, layer):
                x = drawn(*size).requires_grad_()
                out = function(x)
                out.square().sum().backward()
                results.append({'out': out.detach(), 'grad': x.grad})
            assert_near(*results, 1e-6)

    @on_gpu
    @pytest.mark.long
    def test_more_than_32_bits_of_outputs(self):
        """The last image of a batch of more than 2³¹ elements is that of the image alone."""
        b, side, c = 33, 1024, 64
        if torch.cuda.get_device_properties(0).total_memory < 30 << 30:
            pytest.skip('needs a GPU with 30 GB')
        x = torch.randn(b, side, side, c, dtype=torch.float16, device=DEVICE)
        tokens, affinity = ops.sample_super_tokens(x, 4)
        out = ops.upsample_super_tokens(tokens, affinity, (side, side))
        alone = ops.sample_super_tokens(x[-1:], 4)
        assert torch.equal(tokens[-1:], alone[0])
        assert torch.equal(affinity[-1:], alone[1])
        assert torch.equal(out[-1:], ops.upsample_super_tokens(*alone, (side, side)))


@pytest.mark.parametrize(
    ('x', 's', 'n_iter', 'words'),
    [
        (drawn(1, 4, 4, 2, dtype=torch.float64), 2, 1, 'x is torch.float64: convert it, or use the backend'),
        (drawn(1, 4, 4, 2), 0, 1, 'stoken_size must be a positive integer, but got 0'),
        (drawn(1, 4, 4, 2), 2, 0, 'n_iter must be a positive integer, but got 0'),
        (drawn(4, 4, 2), 2, 1, r'x must be \(batch, height, width, channels\), but got \(4, 4, 2\)'),
    ],
)
def test_maps_that_are_refused(x, s, n_iter, words):
    with pytest.raises((TypeError, ValueError), match=words):
        ops.sample_super_tokens(x, s, n_iter)


@pytest.mark.parametrize(
    ('affinity', 'size', 'words'),
    [
        (drawn(1, 2, 2, 4, 9, dtype=torch.float16), (4, 4), 'affinity must be torch.float32'),
        *((drawn(*shape), (4, 4), 'A map of size .* needs tokens') for shape in ((2, 2, 2, 4, 9), (1, 2, 2, 5, 9))),
        (drawn(1, 2, 2, 4, 9), (5, 4), 'A map of size .* needs tokens'),
        (drawn(2, 2, 4, 9), (4, 4), 'A map of size .* needs tokens'),
    ],
)
def test_associations_that_are_refused(affinity, size, words):
    with pytest.raises((TypeError, ValueError), match=words):
        ops.upsample_super_tokens(drawn(1, 2, 2, 3), affinity, size)
