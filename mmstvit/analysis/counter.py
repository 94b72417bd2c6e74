"""Multiply-accumulates of a forward pass, by module and kind, counted where PyTorch dispatches its operators.

In inference mode a dispatch mode sees an operator as it was called (``linear``, ``scaled_dot_product_attention``),
whatever kernel stands behind it on a device; what has no formula here is taken apart until a formula fits or nothing is
left. Only shapes matter, so a model on the meta device is counted in no memory and next to no time.

Counted are convolutions and matrix products (one per product), their biases (one per output element) and normalisation
(one per element, two with scale and shift). Activations, softmax, pooling, interpolation and element-wise sums and
products are not.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

# What multiply-accumulates are spent on. A product is 'linear' and a convolution 'conv' where an operand is a learned
# weight; the others multiply what the network computes: 'matmul' (attention; association, aggregation and upsampling
# of super tokens) and 'dynamic_conv'.
KINDS = ('conv', 'linear', 'norm', 'matmul', 'dynamic_conv')


def count_macs(model: nn.Module, forward: Callable[[], object]) -> dict[str, Counter[str]]:
    """Count the multiply-accumulates of a forward pass.

    Args:
        model: The model whose modules the counts belong to; all its parameters on one device, meta for counting alone.
        forward: Runs the model, or those of its modules that are to be counted.

    Returns:
        For the name of every module that computes something itself, multiply-accumulates by kind (see :data:`KINDS`).
        The empty name stands for the model and for code outside of its modules.
    """
    counter = _MacCounter(model)
    hooks = []
    for name, module in model.named_modules():
        hooks.append(module.register_forward_pre_hook(counter.entering(name)))
        hooks.append(module.register_forward_hook(counter.leaving))
    fused, onednn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    torch.backends.mha.set_fastpath_enabled(False)  # nn.MultiheadAttention as one operator, its products out of sight
    torch.backends.mkldnn.enabled = False  # on CPU our linear layers would be its convolutions
    try:
        with torch.inference_mode(), counter:
            forward()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        torch.backends.mkldnn.enabled = onednn
        for hook in hooks:
            hook.remove()
    return dict(counter.by_module)


class _MacCounter(TorchDispatchMode):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.by_module: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._weights = {_storage(p) for p in model.parameters()}
        self._running = ['']  # names of the modules being called, the innermost last

    def entering(self, name: str) -> Callable[[nn.Module, tuple], None]:
        def hook(module: nn.Module, args: tuple) -> None:
            self._running.append(name)

        return hook

    def leaving(self, module: nn.Module, args: tuple, output: object) -> None:
        self._running.pop()

    def __torch_dispatch__(self, op: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        formula = _FORMULAS.get(op.overloadpacket)
        if formula is None:
            with self:
                out = op.decompose(*args, **kwargs)
            return op(*args, **kwargs) if out is NotImplemented else out
        out = op(*args, **kwargs)
        kind, macs = formula(self._is_learned, out, *args)
        self.by_module[self._running[-1]][kind] += macs
        return out

    def _is_learned(self, *operands: Tensor) -> bool:
        """Whether one of the operands is a parameter of the model, or a view of one."""
        return any(_storage(x) in self._weights for x in operands)


def _storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


# Each formula takes a test for learned weights, the operator's output and its arguments.
_Test = Callable[..., bool]


def _linear(is_learned: _Test, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[str, int]:
    kind = 'linear' if is_learned(weight) else 'matmul'
    return kind, out.numel() * (x.shape[-1] + (bias is not None))


def _product(is_learned: _Test, out: Tensor, a: Tensor, b: Tensor, *_: Any) -> tuple[str, int]:
    """(…, K) times (…, K, N), or times (K)."""
    return 'linear' if is_learned(a, b) else 'matmul', out.numel() * a.shape[-1]


def _sum_and_product(is_learned: _Test, out: Tensor, c: Tensor, a: Tensor, b: Tensor) -> tuple[str, int]:
    kind, macs = _product(is_learned, out, a, b)
    return kind, macs + out.numel()


def _attention(is_learned: _Test, out: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any) -> tuple[str, int]:
    """Queries (…, N, d) with keys (…, M, d), and the map (…, N, M) with values (…, M, e) into the output (…, N, e)."""
    return 'matmul', (q.numel() + out.numel()) * k.shape[-2]


def _convolution(
    is_learned: _Test,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    *_: Any,
) -> tuple[str, int]:
    """Every output element, or input element of a transposed one, meets one slice of the kernel."""
    macs = (x if transposed else out).numel() * prod(weight.shape[1:])
    return 'conv' if is_learned(weight) else 'dynamic_conv', macs + (out.numel() if bias is not None else 0)


def _normalisation(out: Tensor, weight: Tensor | None) -> tuple[str, int]:
    return 'norm', out.numel() * (1 if weight is None else 2)


_FORMULAS: dict[Any, Callable[..., tuple[str, int]]] = {
    aten.linear: _linear,
    aten.mm: _product,
    aten.bmm: _product,
    aten.mv: _product,
    aten.dot: _product,
    aten.addmm: _sum_and_product,
    aten.baddbmm: _sum_and_product,
    aten.scaled_dot_product_attention: _attention,
    aten.convolution: _convolution,
    aten.batch_norm: lambda _, out, x, weight=None, *rest: _normalisation(out, weight),
    aten.instance_norm: lambda _, out, x, weight=None, *rest: _normalisation(out, weight),
    aten.layer_norm: lambda _, out, x, shape, weight=None, *rest: _normalisation(out, weight),
    aten.group_norm: lambda _, out, x, groups, weight=None, *rest: _normalisation(out, weight),
}
