"""Extract super tokens and attention from the forward pass of a model with an STViT."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmstvit.errors import UserError
from mmstvit.layers.attention import SuperTokenAttention
from mmstvit.models import STViT
from mmstvit.ops import super_token

from .records import Attention, Record, SuperTokens

T = TypeVar('T')
# Reads one block: (block, layer, size of the map, association, projections) -> record; None leaves the block out.
Reader = Callable[[Record, SuperTokenAttention, tuple[int, int], Tensor | None, Tensor], T | None]


def super_tokens(model: nn.Module, inputs: Tensor | Mapping) -> list[SuperTokens]:
    """Read the super tokens of an image, block by block.

    Blocks with global attention (``stoken_size`` 1) have none and are left out.

    Args:
        model: A classifier, detector or segmentor with an STViT, or an STViT; in training or deploy form, also wrapped
            for distributed training.
        inputs: A normalized image, (C, H, W) or (1, C, H, W), as the backbone takes it; or a sample of the test
            pipeline, as ``model.test_step`` takes it, with ``inputs`` and ``data_samples``. The image size of a sample
            is that of its ``inputs``, before the data preprocessor pads them.

    Returns:
        One record per block.

    Raises:
        UserError: There is no STViT in the model, or more than one; ``inputs`` are not one image, or are a
            sample although the model has no data preprocessor.
    """
    return _read(model, inputs, _read_association)


def attention_of(
    model: nn.Module, inputs: Tensor | Mapping, point: Sequence[int], per_head: bool = False
) -> list[Attention]:
    """Read the attention of a point over the whole image, block by block.

    Super token attention equals global attention with the map A = Q softmax(QKᵀ/√d) Q̂ᵀ over tokens (Eqs. 14–15, drawn
    in Fig. 2(d) of the paper). This computes the row of the token at ``point``, not the map. For blocks with global
    attention it is the row of their map.

    Args:
        model: See :func:`super_tokens`.
        inputs: See :func:`super_tokens`.
        point: Column x and row y of a pixel.
        per_head: Keep the heads apart instead of their mean.

    Returns:
        One record per block.

    Raises:
        UserError: See :func:`super_tokens`; the point is outside the image.
    """
    return _read(model, inputs, functools.partial(_read_row, point=tuple(point), per_head=per_head))


def find_backbone(model: nn.Module) -> tuple[str, STViT]:
    """Return the name of the STViT in a model, and the STViT; raises UserError if there is not exactly one."""
    found = {name: module for name, module in model.named_modules() if isinstance(module, STViT)}
    if len(found) != 1:
        raise UserError(
            f'{type(model).__name__} has {len(found)} STViT backbones{": " if found else ""}{", ".join(found)}.',
            'Pass one of them instead of the model.' if found else 'Super tokens exist in an STViT only.',
        )
    return next(iter(found.items()))


@torch.no_grad()
def _read(model: nn.Module, inputs: Tensor | Mapping, reader: Reader[T]) -> list[T]:
    """Run the backbone on an image, and reduce each block to a record as soon as it is computed."""
    model = model.module if is_model_wrapper(model) else model
    prefix, backbone = find_backbone(model)
    images, size = _prepare(model, backbone, inputs)
    records: list[T] = []

    def receive(stage: int, index: int, map_size: tuple[int, int], association: Tensor | None, qkv: Tensor) -> None:
        layer = backbone.stages[stage][index].attn
        name = '.'.join(filter(None, [prefix, f'stages.{stage}.{index}']))
        block = Record(name, stage, index, 4 * 2**stage, layer.stoken_size, tuple(qkv.shape[1:3]), size)
        record = reader(block, layer, map_size, association, qkv)
        if record is not None:
            records.append(record)

    with _evaluating(backbone), contextlib.ExitStack() as stack:
        for stage, blocks in enumerate(backbone.stages):
            for index, block in enumerate(blocks):
                stack.enter_context(_recording(block.attn, functools.partial(receive, stage, index)))
        backbone(images)
    return records


def _read_association(
    block: Record,
    layer: SuperTokenAttention,
    map_size: tuple[int, int],
    association: Tensor | None,
    qkv: Tensor,
) -> SuperTokens | None:
    """Return the association of a block, token by token, without padding."""
    if association is None:
        return None
    _, h, w, _, k = association.shape
    s = block.stoken_size
    tokens = association[0].reshape(h, w, s, s, k).transpose(1, 2).reshape(h * s, w * s, k)
    return SuperTokens(**vars(block), association=_to_array(_crop(tokens, block)))


def _read_row(
    block: Record,
    layer: SuperTokenAttention,
    map_size: tuple[int, int],
    association: Tensor | None,
    qkv: Tensor,
    point: tuple[int, int],
    per_head: bool,
) -> Attention:
    """Return the row of A that belongs to a point."""
    if type(layer) is not SuperTokenAttention:
        raise UserError(
            f'{block.name} has {type(layer).__name__}, whose attention is not that of Eqs. 14–15.',
            'Use an STViT. Of a model of an ablation the super tokens alone can be read.',
        )
    num_heads = layer.num_heads
    (height, width), (x, y) = block.size, point
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(f'the point ({x}, {y}) is outside the image of {width}×{height} pixels (x, y from 0).')
    x, y = int(x) // block.stride, int(y) // block.stride
    _, h, w, _ = qkv.shape
    qkv = qkv.to(torch.promote_types(qkv.dtype, torch.float32))
    q, k, _ = (t[0] for t in super_token.split_heads(qkv.flatten(1, 2), num_heads))  # (heads, h·w, d) each
    if association is None:
        queries, weights = torch.tensor([y * w + x], device=q.device), q.new_ones(1)
    else:
        queries, weights = _super_tokens_of(association[0], y, x, block.stoken_size)
    # Of the queries, those of the point alone: at most nine rows, (heads, n, h·w).
    rows = (q[:, queries] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    row = (weights.to(rows.dtype)[:, None] * rows).sum(1).t().reshape(1, h, w, num_heads)
    if association is not None:
        total = super_token.total_weights(association).to(row.dtype)
        row = super_token.upsample_super_tokens(row / total, association, map_size)
    row = _crop(row[0], block).movedim(-1, 0)  # (heads, H, W)
    row = row if per_head else row.mean(0)
    return Attention(**vars(block), token=(y, x), weights=_to_array(row))


def _super_tokens_of(association: Tensor, y: int, x: int, s: int) -> tuple[Tensor, Tensor]:
    """Return the super tokens in reach of a token, without neighbors outside the grid, and its weights."""
    h, w, _, _ = association.shape
    weights = association[y // s, x // s, y % s * s + x % s]  # (9)
    offsets = torch.arange(9, device=weights.device)
    rows, columns = y // s + offsets // 3 - 1, x // s + offsets % 3 - 1
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    return (rows * w + columns)[inside], weights[inside]


def _crop(tokens: Tensor, block: Record) -> Tensor:
    """Return the tokens that have a part of the image: (H', W', C) -> (⌈H/t⌉, ⌈W/t⌉, C)."""
    height, width = (-(-side // block.stride) for side in block.size)
    return tokens[:height, :width]


def _to_array(values: Tensor) -> np.ndarray:
    """Copy to an array; numbers of half precision, which autocast gives, become float32."""
    return values.to(torch.promote_types(values.dtype, torch.float32)).cpu().numpy()


def _prepare(model: nn.Module, backbone: STViT, inputs: Tensor | Mapping) -> tuple[Tensor, tuple[int, int]]:
    """Return the input of the backbone, (1, C, H', W'), and the size of the image in it; raises UserError."""
    images = inputs
    if isinstance(inputs, Mapping):
        if 'inputs' not in inputs or not hasattr(model, 'data_preprocessor'):
            raise UserError(
                f'{type(model).__name__} cannot read a sample with {", ".join(inputs) or "nothing"} in it.',
                'Pass a sample of the test pipeline and the whole model, or a normalized image.',
            )
        images = inputs['inputs']
        if isinstance(images, Tensor) and images.dim() == 3:
            inputs = pseudo_collate([inputs])
        preprocessed = model.data_preprocessor(inputs, False)['inputs']
        images = images[0] if isinstance(images, (list, tuple)) and len(images) == 1 else images
    if not isinstance(images, Tensor) or images.dim() not in (3, 4) or (images.dim() == 4 and len(images) != 1):
        found = tuple(images.shape) if isinstance(images, Tensor) else f'{type(images).__name__} of {len(images)}'
        raise UserError(f'expected one image, (C, H, W) or (1, C, H, W), but got {found}.', 'Pass one image at a time.')
    size = tuple(images.shape[-2:])
    if isinstance(inputs, Mapping):
        return preprocessed, size
    like = next(backbone.parameters())
    images = images[None] if images.dim() == 3 else images
    return images.to(like.device, like.dtype if images.is_floating_point() else None), size


@contextlib.contextmanager
def _recording(layer: SuperTokenAttention, recorder: Callable) -> Iterator[None]:
    """Set the recorder of a layer, and put back what was there."""
    before, layer.recorder = layer.recorder, recorder
    try:
        yield
    finally:
        layer.recorder = before


@contextlib.contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Set the evaluation mode, and put back the mode of each part."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
