"""Whether a backbone of ours computes what the published algorithm computes: nothing is timed that does not."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmstvit.apis import UserError
from mmstvit.layers import SuperTokenAttention
from mmstvit.models import STViT

from .published import PublishedSTViT

# No stage's map of such images is a multiple of its cells.
SHAPE = (2, 3, 93, 75)
# The errors that rounding makes, of features and of gradients, by the type that is computed in.
TOLERANCES = {'fp32': (1e-5, 1e-4), 'bf16': (0.02, 0.05), 'fp16': (0.003, 0.01)}
AUTOCAST_DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}

Forward = Callable[[Tensor], tuple[Tensor, ...]]


def in_dtype(forward: Forward, dtype: str, device: torch.device) -> Forward:
    """Run a forward pass under autocast to ``'bf16'`` or ``'fp16'``, or for ``'fp32'`` as it is."""
    if dtype not in AUTOCAST_DTYPES:
        return forward

    def autocast(image: Tensor) -> tuple[Tensor, ...]:
        with torch.autocast(device.type, AUTOCAST_DTYPES[dtype]):
            return forward(image)

    return autocast


def check_agreement(
    name: str, model: STViT, prepare: Callable[[STViT], Forward], train: bool, dtype: str, device: torch.device
) -> dict[str, float]:
    """Compare a model with the published algorithm in fp32, on random weights and images.

    Random are also the BatchNorm statistics and the layer scales, which are of order 1 so that no branch is hidden.

    An error is the largest difference over the largest value expected; under autocast, where single values say
    little, both are Euclidean norms. For the gradient of a bias the values expected include those of the weight beside
    it: a bias before a BatchNorm has none but rounding errors. Allowed are :data:`TOLERANCES` and, under autocast,
    twice the error of the published algorithm under the same autocast.

    Args:
        name: What to call the model in an error.
        model: The model; its weights and drop rates change.
        prepare: Makes of the model what is going to be timed.
        train: Whether to compare, besides the features, the gradients of the image and of every parameter, and
            BatchNorm's statistics after the step; in training mode then.
        dtype: A key of :data:`TOLERANCES`: what to compute in.
        device: Device to compute on.

    Returns:
        The largest error of ``features`` and, in training, ``gradients`` and ``statistics``.

    Raises:
        UserError: They disagree; names the worst tensor, its error and the tolerance.
    """
    generator = torch.Generator().manual_seed(1)
    _randomise(model, generator)
    model.to(device).train(train)
    image = torch.randn(SHAPE, generator=generator).to(device)
    reference, published = copy.deepcopy(model), copy.deepcopy(model)
    expected = _compute(reference, PublishedSTViT(reference), image, train)
    rounded = _compute(published, in_dtype(PublishedSTViT(published), dtype, device), image, train)
    actual = _compute(model, in_dtype(prepare(model), dtype, device), image, train)
    worst = {}
    for kind in expected:
        errors = _errors(actual[kind], expected[kind], dtype)
        rounding = _errors(rounded[kind], expected[kind], dtype)
        allowed = {place: TOLERANCES[dtype][kind == 'gradients'] + 2 * rounding[place] for place in expected[kind]}
        place = max(errors, key=lambda place: errors[place] / allowed.get(place, 1))
        if not errors[place] <= allowed.get(place, 0):
            raise UserError(
                f'{name} disagrees with the published algorithm and is not timed: {kind} {place} is off by '
                f'{errors[place]:.2g} of its size in {dtype}; {allowed.get(place, 0):.2g} is allowed.'
            )
        worst[kind] = errors[place]
    return worst


@torch.no_grad()
def _randomise(model: STViT, generator: torch.Generator) -> None:
    """Random norms and layer scales; nothing dropped."""
    model.set_drop_path_rate(0.0)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, SuperTokenAttention):
            module.attn_drop_rate = 0.0
        elif isinstance(module, (_BatchNorm, nn.LayerNorm)):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(std=0.1, generator=generator)
        if isinstance(module, _BatchNorm):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    for name, parameter in model.named_parameters():
        if name.rpartition('.')[2] in ('gamma1', 'gamma2'):
            parameter.uniform_(0.5, 1.5, generator=generator)


def _compute(model: STViT, forward: Forward, image: Tensor, train: bool) -> dict[str, dict[str, Tensor]]:
    """Features by stage; in training also gradients and statistics by name."""
    image = image.clone().requires_grad_(train)
    with torch.set_grad_enabled(train):
        features = forward(image)
    results = {'features': {str(i): x.detach().float() for i, x in zip(model.out_indices, features, strict=True)}}
    if train:
        backward(features)
        results['gradients'] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results['gradients']['image'] = image.grad
        results['statistics'] = {name: buffer.float() for name, buffer in model.named_buffers()}
    return results


def backward(features: tuple[Tensor, ...], cotangents: list[Tensor] | None = None) -> list[Tensor]:
    """Run the backward pass of a loss in which every entry of every map has a random weight.

    The mean of a map would not do: what follows a LayerNorm has the mean 0 whatever the input, and zero gradients.

    Args:
        features: What the forward pass returned.
        cotangents: What an earlier call returned, to save drawing the weights again.

    Returns:
        The weights.
    """
    if cotangents is None:
        generator = torch.Generator().manual_seed(2)
        cotangents = [
            (torch.randn(x.shape, generator=generator) / x.numel() ** 0.5).to(x.device, x.dtype) for x in features
        ]
    torch.autograd.backward(features, cotangents)
    return cotangents


def _errors(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], dtype: str) -> dict[str, float]:
    """Relative errors by name; inf for what is missing, left over or not a number."""
    order = float('inf') if dtype == 'fp32' else 2

    def size(x: Tensor) -> float:
        return torch.linalg.vector_norm(x.double(), order).item()

    errors = {}
    for name in {**expected, **actual}:
        if name not in expected or name not in actual or actual[name].shape != expected[name].shape:
            errors[name] = float('inf')
            continue
        difference = size(actual[name] - expected[name])
        beside = {name, name.removesuffix('bias') + 'weight'} & set(expected)
        error = difference / (max(size(expected[n]) for n in beside) or 1)
        errors[name] = error if error == error else float('inf')
    return errors
