"""Parameters and multiply-accumulates of the model of a config: a detector, segmentor or classifier.

The model is built, put on the meta device and run on an image without content: no weights are read, no data set is
needed and nothing is computed but shapes. RoIAlign and NMS do not run there and are left out; the heads of a two-stage
detector run on regions of the size that RoIAlign hands them.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmstvit.apis import UserError, build_model

from .counter import KINDS, count_macs

# Regions through every box head and every mask head of a detector: the counter of OpenMMLab, and so the paper.
NUM_BOXES = 1000
NUM_MASKS = 100

# What the paper's FLOPs are, by the library that a config runs in: kinds that count, and sides of the image. Those of
# a classifier are in its config.
_LAYERS = ('conv', 'linear', 'norm')
_PAPER_KINDS = {'mmdet': _LAYERS, 'mmseg': _LAYERS, 'mmpretrain': KINDS}
_PAPER_SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}
# Transforms of a classifier that settle the size of the image -> their argument for it.
_SIZES = {'CenterCrop': 'crop_size', 'Resize': 'scale', 'RandomResizedCrop': 'scale'}


@dataclass(frozen=True)
class Cost:
    """Cost of a module, with everything inside of it.

    Args:
        params: Learned parameters.
        kinds: Multiply-accumulates by kind, see :data:`mmstvit.analysis.counter.KINDS`.
        everything: Multiply-accumulates of all kinds.
        paper: Multiply-accumulates in the paper's convention: of all kinds for a classifier; of convolutions, linear
            layers and norms for a detector or segmentor, without the products of activations.
    """

    params: int
    kinds: Mapping[str, int]
    everything: int
    paper: int


@dataclass(frozen=True)
class Complexity:
    """Cost of a config's model on one image.

    Args:
        shape: Height and width that the network sees, after the padding of the data preprocessor.
        modules: Cost of every module by name, in the model's order; the empty name is the model.
    """

    shape: tuple[int, int]
    modules: Mapping[str, Cost]

    @property
    def total(self) -> Cost:
        return self.modules['']


def measure(cfg: Config, shape: Sequence[int] | None = None) -> Complexity:
    """Count the parameters and multiply-accumulates of a config's model at inference.

    Args:
        cfg: A config with ``default_scope`` mmdet, mmseg or mmpretrain.
        shape: Height and width of the image; by default those of the paper's tables, 800×1280 for a detector and
            512×2048 for a segmentor, and for a classifier the crop of its test pipeline, else of its training pipeline.

    Returns:
        The cost of the model and of all its modules.

    Raises:
        UserError: The model cannot be built or cannot be counted, or not on an image of this shape.
    """
    height, width = default_shape(cfg) if shape is None else shape
    divisor = (cfg.model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
    height, width = (ceil(side / divisor) * divisor for side in (height, width))
    # Not built there: Swin and others compute their rates of stochastic depth with tensors.
    model = build_model(cfg).eval().to('meta')
    forward = _forward(cfg.default_scope, model)
    try:
        macs = count_macs(model, lambda: forward(torch.zeros(1, 3, height, width, device='meta')))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition('\n')[0]
        raise UserError(f'{type(model).__name__} cannot be counted at {height}×{width}: {reason}') from error
    return Complexity((height, width), _add_up(model, macs, _PAPER_KINDS[cfg.default_scope]))


def default_shape(cfg: Config) -> tuple[int, int]:
    """Height and width of the image where none are given; see :func:`measure`.

    Raises:
        UserError: The pipelines of a classifier neither crop nor resize to a size of their own.
    """
    if cfg.default_scope in _PAPER_SHAPES:
        return _PAPER_SHAPES[cfg.default_scope]
    for split in ('test', 'train'):
        pipeline = (cfg.get(f'{split}_dataloader') or {}).get('dataset', {}).get('pipeline', [])
        for step in reversed(pipeline):
            side = step.get(_SIZES.get(step['type']))
            if side is not None:
                # OpenMMLab's transforms take one side of a square, or width and height.
                return (side, side) if isinstance(side, int) else (side[1], side[0])
    raise UserError(f'no pipeline of the config has a size to take from {sorted(_SIZES)}; give height and width.')


def _forward(scope: str, model: nn.Module) -> Callable[[Tensor], object]:
    """What runs the layers of a model, from an image to the outputs of its heads."""
    if scope == 'mmdet':
        return _detector_forward(model)
    if scope == 'mmseg':
        return _segmentor_forward(model)
    return _classifier_forward(model)


def _classifier_forward(model: nn.Module) -> Callable[[Tensor], object]:
    from mmpretrain.models import ImageClassifier

    if type(model) is not ImageClassifier:
        raise _uncountable(model, 'ImageClassifier')
    return lambda image: model(image, mode='tensor')


def _segmentor_forward(model: nn.Module) -> Callable[[Tensor], object]:
    from mmseg.models import EncoderDecoder

    if type(model) is not EncoderDecoder:
        raise _uncountable(model, 'EncoderDecoder')
    # Without the auxiliary head, which inference does not run.
    return lambda image: model.decode_head(model.extract_feat(image))


def _detector_forward(model: nn.Module) -> Callable[[Tensor], object]:
    from mmdet.models import CascadeRoIHead, StandardRoIHead, TwoStageDetector

    roi_head = getattr(model, 'roi_head', None)
    known = isinstance(model, TwoStageDetector) and type(roi_head) in (StandardRoIHead, CascadeRoIHead)
    if not known or roi_head.with_shared_head:
        raise _uncountable(model, 'a two-stage detector with StandardRoIHead or CascadeRoIHead and no shared head')

    def forward(image: Tensor) -> None:
        features = model.extract_feat(image)
        if model.with_rpn:
            model.rpn_head(features)
        for name, number in (('bbox', NUM_BOXES), ('mask', NUM_MASKS)):
            if getattr(roi_head, f'with_{name}'):
                extractors = _stages(getattr(roi_head, f'{name}_roi_extractor'))
                heads = _stages(getattr(roi_head, f'{name}_head'))
                for extractor, head in zip(extractors, heads, strict=True):
                    size = extractor.roi_layers[0].output_size
                    head(torch.zeros(number, extractor.out_channels, *size, device='meta'))

    return forward


def _stages(part: nn.Module) -> Sequence[nn.Module]:
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _uncountable(model: nn.Module, known: str) -> UserError:
    parts = [type(model).__name__]
    if hasattr(model, 'roi_head'):
        parts.append(type(model.roi_head).__name__)
    return UserError(f'{" with ".join(parts)} cannot be counted; of its library, {known} can.')


def _add_up(model: nn.Module, macs: Mapping[str, Mapping[str, int]], paper_kinds: Sequence[str]) -> dict[str, Cost]:
    """From what each module computes or holds itself to what is inside of it."""
    names = [name for name, _ in model.named_modules()]
    params = dict.fromkeys(names, 0)
    kinds = {name: Counter(dict.fromkeys(KINDS, 0)) for name in names}
    for name, parameter in model.named_parameters():
        for outer in _outer_names(name.rpartition('.')[0]):
            params[outer] += parameter.numel()
    for name, own in macs.items():
        for outer in _outer_names(name):
            kinds[outer].update(own)
    return {
        name: Cost(params[name], kinds[name], sum(kinds[name].values()), sum(kinds[name][k] for k in paper_kinds))
        for name in names
    }


def _outer_names(name: str) -> Iterator[str]:
    """The names of a module and of all those it is in: 'a.b' -> 'a.b', 'a', ''."""
    yield name
    while name:
        name = name.rpartition('.')[0]
        yield name
