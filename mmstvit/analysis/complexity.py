"""Count parameters and multiply-accumulates of a detector, segmentor or classifier from image to heads.

The model runs on the meta device with an empty image: no weights and no data set are needed. RoIAlign and NMS do not
run there and are left out; the heads of a two-stage detector run on regions of the size that RoIAlign returns. All
queries of a transformer pass all its layers.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import torch
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmstvit.errors import UserError

from .counter import count_macs

# Regions through every box head and every mask head, as in OpenMMLab's own counter.
NUM_BOXES = 1000
NUM_MASKS = 100

# Height and width that papers state FLOPs for, by library; a classifier's are in its config.
_SHAPES = {'mmdet': (800, 1280), 'mmseg': (512, 2048)}
# Transforms of a classifier that set the size of the image -> their argument.
_SIZE_ARGUMENTS = {'CenterCrop': 'crop_size', 'Resize': 'scale', 'RandomResizedCrop': 'scale'}


@dataclass(frozen=True)
class Cost:
    """Cost of a module, its submodules included.

    Args:
        params: Learned parameters.
        kinds: Multiply-accumulates by kind, see :data:`mmstvit.analysis.KINDS`.
    """

    params: int
    kinds: Mapping[str, int]

    @property
    def everything(self) -> int:
        """Multiply-accumulates of all kinds."""
        return sum(self.kinds.values())

    @property
    def layers(self) -> int:
        """Multiply-accumulates of convolutions, linear layers and norms, without the products of two activations."""
        return self.everything - self.kinds['matmul']


@dataclass(frozen=True)
class Complexity:
    """Cost of a model on one image.

    Args:
        shape: Height and width that the network sees, after the padding of the data preprocessor.
        modules: Cost of every module by name, in the model's order; the empty name is the model.
    """

    shape: tuple[int, int]
    modules: Mapping[str, Cost]

    @property
    def total(self) -> Cost:
        """Cost of the model."""
        return self.modules['']


def count_complexity(model: nn.Module, shape: Sequence[int]) -> Complexity:
    """Count the parameters and multiply-accumulates of a model at inference.

    Args:
        model: A model of MMDetection, MMSegmentation or MMPreTrain, which loses its weights (moved to the meta device).
        shape: Height and width of the image.

    Returns:
        The cost of the model and of all its modules.

    Raises:
        UserError: The model cannot be counted, or not on an image of this shape.
    """
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    height, width = (ceil(side / divisor) * divisor for side in shape)
    model.eval().to('meta')
    forward = _inference_forward(model)
    try:
        with _RealSizes():
            macs = count_macs(model, lambda: forward(torch.zeros(1, 3, height, width, device='meta')))
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition('\n')[0]
        raise UserError(f'{type(model).__name__} cannot be counted at {height}×{width}: {reason}') from error
    params = Counter(dict.fromkeys(macs, 0))
    for name, parameter in model.named_parameters():
        while name:
            name = name.rpartition('.')[0]
            params[name] += parameter.numel()
    return Complexity((height, width), {name: Cost(params[name], macs[name]) for name, _ in model.named_modules()})


def default_shape(cfg: Config) -> tuple[int, int]:
    """Return the height and width that papers state FLOPs for.

    Args:
        cfg: The config. 800×1280 for a detector and 512×2048 for a segmentor; for a classifier the crop of its test
            pipeline, else of its training pipeline.

    Raises:
        UserError: The pipelines of a classifier neither crop nor resize to a fixed size.
    """
    if cfg.default_scope in _SHAPES:
        return _SHAPES[cfg.default_scope]
    for split in ('test', 'train'):
        pipeline = (cfg.get(f'{split}_dataloader') or {}).get('dataset', {}).get('pipeline', [])
        for step in reversed(pipeline):
            side = step.get(_SIZE_ARGUMENTS.get(step['type']))
            if side is not None:
                # OpenMMLab's transforms take one side of a square, or width and height.
                return (side, side) if isinstance(side, int) else (side[1], side[0])
    raise UserError(
        f'No pipeline of the config sets the image size (expected one of {", ".join(_SIZE_ARGUMENTS)}).',
        'Give height and width: --shape H W',
    )


def _inference_forward(model: nn.Module) -> Callable[[Tensor], object]:
    """Return a function that runs the layers of a model, from an image to the outputs of its heads."""
    libraries = {base.__module__.partition('.')[0] for base in type(model).__mro__}
    if 'mmdet' in libraries:
        return _detector_forward(model)
    return _segmentor_forward(model) if 'mmseg' in libraries else _classifier_forward(model)


def _classifier_forward(model: nn.Module) -> Callable[[Tensor], object]:
    from mmpretrain.models import ImageClassifier

    if type(model) is not ImageClassifier:
        raise _uncountable(model, 'ImageClassifier')
    return lambda image: model(image, mode='tensor')


def _segmentor_forward(model: nn.Module) -> Callable[[Tensor], object]:
    from mmseg.models import EncoderDecoder
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    if type(model) is not EncoderDecoder:
        raise _uncountable(model, 'EncoderDecoder')
    head = model.decode_head  # inference does not run the auxiliary head

    def forward(image: Tensor) -> object:
        features = model.extract_feat(image)
        # The heads of mask transformers are MMDetection's, which take samples.
        return head(features) if isinstance(head, BaseDecodeHead) else head(features, _samples(image))

    return forward


def _detector_forward(model: nn.Module) -> Callable[[Tensor], object]:
    from mmdet.models import (
        CascadeRoIHead,
        DetectionTransformer,
        MaskFormer,
        SingleStageDetector,
        StandardRoIHead,
        TwoStageDetector,
    )

    if isinstance(model, MaskFormer):  # mode='tensor' would not call the head as a module
        return lambda image: model.panoptic_head(model.extract_feat(image), _samples(image))
    if isinstance(model, (SingleStageDetector, DetectionTransformer)):
        return lambda image: model(image, _samples(image), mode='tensor')
    roi_head = getattr(model, 'roi_head', None)
    known = isinstance(model, TwoStageDetector) and type(roi_head) in (StandardRoIHead, CascadeRoIHead)
    if not known or roi_head.with_shared_head:
        raise _uncountable(
            model, 'transformers, one-stage detectors, and two-stage ones with StandardRoIHead or CascadeRoIHead'
        )

    def forward(image: Tensor) -> None:
        features = model.extract_feat(image)
        if model.with_rpn:
            model.rpn_head(features)
        for name, number in (('bbox', NUM_BOXES), ('mask', NUM_MASKS)):
            if getattr(roi_head, f'with_{name}'):
                extractors = _as_list(getattr(roi_head, f'{name}_roi_extractor'))
                heads = _as_list(getattr(roi_head, f'{name}_head'))
                for extractor, head in zip(extractors, heads, strict=True):
                    size = extractor.roi_layers[0].output_size
                    head(torch.zeros(number, extractor.out_channels, *size, device='meta'))

    return forward


class _RealSizes(TorchFunctionMode):
    """Give tensors of sizes numbers on the meta device, where they have none: transformers split tokens by them."""

    def __torch_function__(
        self, func: Callable, types: object, args: Sequence = (), kwargs: Mapping | None = None
    ) -> object:
        if func is torch._shape_as_tensor:
            return torch.tensor(args[0].shape)
        if func is Tensor.to and not args[0].is_meta:
            return args[0]
        if any(isinstance(x, Tensor) and x.is_meta for x in args):  # both sides of an operator on one device
            args = [x.to('meta') if isinstance(x, Tensor) and x.dim() and not x.is_meta else x for x in args]
        return func(*args, **(kwargs or {}))


def _samples(image: Tensor) -> list[BaseDataElement]:
    """Return what transformers read about the image: it has no padding."""
    shape = tuple(image.shape[2:])
    return [BaseDataElement(metainfo=dict(img_shape=shape, batch_input_shape=shape))]


def _as_list(part: nn.Module) -> Sequence[nn.Module]:
    return list(part) if isinstance(part, nn.ModuleList) else [part]


def _uncountable(model: nn.Module, supported: str) -> UserError:
    parts = [type(model).__name__]
    if hasattr(model, 'roi_head'):
        parts.append(type(model.roi_head).__name__)
    return UserError(f'{" with ".join(parts)} cannot be counted.', f'Supported in its library: {supported}.')
