"""Count the operators, kernel launches and bytes of a step as it would run on CUDA; this needs no GPU.

The step runs on the CPU with tensors that have shapes and dtypes but no numbers. Autocast is that of the CPU, except
for layer norms, which CUDA's autocast computes in fp32. Counts are exact for operators and repeat on every machine.
Launches are modeled: the kernels that PyTorch's CUDA operators were seen to start (:data:`LAUNCHES`). Bytes are what
operators read and write if nothing stays in a cache; what a kernel reads twice counts once.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Operators that only reserve memory or return another view of it.
_NOT_COMPUTING = {'_unsafe_view', 'empty', 'empty_like', 'empty_strided', 'new_empty', 'new_empty_strided'}
# torch's multi-tensor kernels take so many tensors, and so many blocks of so many numbers, per launch.
_TENSORS_PER_LAUNCH, _BLOCKS_PER_LAUNCH, _BLOCK = 64, 320, 65536


def _convolution(x: Tensor, weight: Tensor, bias: Tensor | None, *_: object) -> int:
    return 1 + (bias is not None)  # cuDNN adds no bias


def _convolution_backward(*args: object) -> int:
    x, weight, bias = args[-1]
    return x + 2 * weight + bias  # partial sums of the weights' gradient, and their sum


def _batch_norm(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, train: bool, *_: object) -> int:
    return 3 if train else 1  # sums, statistics, result


# Kernels per operator, a number or a function of its arguments; all others start one.
LAUNCHES: dict[str, int | Callable[..., int]] = {
    'aten::convolution': _convolution,
    'aten::convolution_backward': _convolution_backward,
    'aten::native_batch_norm': _batch_norm,
    'aten::native_batch_norm_backward': 3,
    'aten::native_layer_norm_backward': 2,
    'aten::sum': 2,
    'aten::index_put': 3,
    'aten::eye': 2,
    'aten::_scaled_dot_product_flash_attention_for_cpu_backward': 4,
}


@dataclass(frozen=True)
class LaunchCount:
    """Cost of starting a step, and the memory that it moves.

    Args:
        operators: Operators of PyTorch that compute; views and allocations do not.
        launches: Kernels that they start on CUDA, as modeled.
        bytes: Bytes that the operators read and write.
    """

    operators: int
    launches: int
    bytes: int


def count_launches(
    model: nn.Module,
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    train: bool = False,
    launches: Mapping[str, int | Callable[..., int]] | None = None,
) -> LaunchCount:
    """Count the forward pass of a model and, in training, the backward pass.

    Args:
        model: A module that takes images and returns a sequence of maps; its weights are not read or changed.
        shape: Batch size, channels, height and width of the images.
        dtype: The dtype of autocast; fp32 is no autocast.
        train: Count the backward pass, too. The model is in the right mode already.
        launches: Kernels of operators that are not PyTorch's, as in :data:`LAUNCHES`.

    Returns:
        Operators, launches and bytes.
    """
    counter = _Counter({**LAUNCHES, **(launches or {})})
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    tensors = {
        name: fake.from_tensor(tensor.detach()).requires_grad_(tensor.requires_grad)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    autocast = nullcontext() if dtype == torch.float32 else torch.autocast('cpu', dtype)
    with fake, torch.set_grad_enabled(train), counter:
        with autocast, _AutocastOfCuda():
            maps = functional_call(model, tensors, torch.empty(shape))
        if train:
            torch.autograd.backward(maps, [torch.empty_like(x) for x in maps])
    return LaunchCount(counter.operators, counter.launches, counter.bytes)


class _Counter(TorchDispatchMode):
    def __init__(self, launches: Mapping[str, int | Callable[..., int]]) -> None:
        super().__init__()
        self._table = launches
        self.operators = self.launches = self.bytes = 0

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: object, args: Sequence = (), kwargs: Mapping | None = None
    ) -> object:
        out = func(*args, **(kwargs or {}))
        written = _tensors(out) or _tensors(args[0] if args and func.__name__.startswith('_foreach') else ())
        name = func._schema.name
        if written and not func.is_view and name.partition('::')[2] not in _NOT_COMPUTING:
            read = _tensors((args, kwargs))
            self.operators += 1
            self.launches += self._count_kernels(name, args, read)
            self.bytes += sum(x.numel() * x.element_size() for x in read + written)
        return out

    def _count_kernels(self, name: str, args: Sequence, read: Sequence[Tensor]) -> int:
        if name.startswith('aten::_foreach'):
            tensors = args[0]
            blocks = sum(ceil(x.numel() / _BLOCK) for x in tensors)
            return max(ceil(len(tensors) / _TENSORS_PER_LAUNCH), ceil(blocks / _BLOCKS_PER_LAUNCH))
        kernels = self._table.get(name, 1)
        return kernels if isinstance(kernels, int) else kernels(*args)


class _AutocastOfCuda(TorchFunctionMode):
    """Compute layer norms under autocast in fp32, as on CUDA."""

    def __torch_function__(
        self, func: Callable, types: object, args: Sequence = (), kwargs: Mapping | None = None
    ) -> object:
        if func is F.layer_norm and torch.is_autocast_enabled('cpu'):
            with torch.autocast('cpu', enabled=False):
                return func(*(x.float() if isinstance(x, Tensor) else x for x in args), **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _tensors(value: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
