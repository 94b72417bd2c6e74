"""Count the multiply-accumulates of a forward pass by module and kind.

Counted are convolutions and matrix products (one per product), their biases (one per output element) and normalization
(one per element, two with scale and shift). Activations, softmax, pooling, interpolation and element-wise sums and
products are not counted.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
Shape = Sequence[int]

# A 'matmul' multiplies two activations: attention; association, update and upsampling of super tokens.
KINDS = ('conv', 'linear', 'norm', 'matmul')


def count_macs(model: nn.Module, forward: Callable[[], object]) -> dict[str, Counter[str]]:
    """Count the multiply-accumulates of a forward pass.

    Only shapes matter: a model on the meta device is counted in little time and without memory.

    Args:
        model: The model.
        forward: A function that runs the model, or some of its modules.

    Returns:
        Multiply-accumulates by kind (see :data:`KINDS`) of every module by name, submodules included; the empty name is
        the model.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_formulas())
    with torch.inference_mode(), counter:  # outside inference mode, linear layers and norms arrive in pieces
        _Root(model, forward)()
    found = counter.get_flop_counts()
    macs = {}
    for name, module in reversed(list(model.named_modules())):  # parts before the modules that contain them
        path = f'_Root.model.{name}' if name else 'Global'
        macs[name] = Counter(dict.fromkeys(KINDS, 0))
        if path in found:
            for op, flops in found[path].items():
                macs[name][_OPERATORS[op][0] if op in _OPERATORS else 'matmul'] += flops // 2
        else:  # not called itself, such as a ModuleList
            for part, _ in module.named_children():
                macs[name].update(macs.get(f'{name}.{part}', {}))
    return macs


class _Root(nn.Module):
    """Make the counter name modules by their full path, even if ``forward`` calls only parts of the model."""

    def __init__(self, model: nn.Module, forward: Callable[[], object]) -> None:
        super().__init__()
        self.model = model
        self.run = forward

    def forward(self) -> None:
        self.run()


def _linear(x: Shape, weight: Shape, bias: Shape | None = None, *, out_shape: Shape) -> int:
    return prod(out_shape) * (x[-1] + (bias is not None))


def _convolution(
    x: Shape, weight: Shape, bias: Shape | None, stride: Shape, padding: Shape, dilation: Shape, transposed: bool,
    *_: object, out_shape: Shape,
) -> int:  # fmt: skip
    """Count one slice of the kernel per output element, or per input element of a transposed convolution."""
    return prod(x if transposed else out_shape) * prod(weight[1:]) + (prod(out_shape) if bias is not None else 0)


def _attention(q: Shape, k: Shape, v: Shape, *_: object, out_shape: Shape, **options: object) -> int:
    """Queries (…, N, d), keys (…, M, d), output (…, N, e)."""
    return (prod(q) + prod(out_shape)) * k[-2]


def _norm(x: Shape, weight: Shape | None = None, *_: object, out_shape: Shape) -> int:
    return prod(x) * (1 if weight is None else 2)


def _norm_with_groups(x: Shape, groups: object, weight: Shape | None = None, *_: object, out_shape: Shape) -> int:
    return _norm(x, weight, out_shape=out_shape)


# Operator -> kind and multiply-accumulates; PyTorch has formulas for the products that are missing here.
_OPERATORS = {
    aten.linear: ('linear', _linear),
    aten.convolution: ('conv', _convolution),
    aten.scaled_dot_product_attention: ('matmul', _attention),
    aten.batch_norm: ('norm', _norm),
    aten.instance_norm: ('norm', _norm),
    aten.layer_norm: ('norm', _norm_with_groups),
    aten.group_norm: ('norm', _norm_with_groups),
}


def _formulas() -> dict[object, Callable[..., int]]:
    """Return FLOPs, 2 per multiply-accumulate, by operator; by overload, too, or the counter takes operators apart."""

    def double(formula: Callable[..., int]) -> Callable[..., int]:
        return lambda *args, **kwargs: 2 * formula(*args, **kwargs)

    formulas = {op: double(formula) for op, (_, formula) in _OPERATORS.items()}
    return formulas | {getattr(op, name): formula for op, formula in formulas.items() for name in op.overloads()}
