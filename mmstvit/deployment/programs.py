"""Models as programs with tensors in and tensors out, which exporters can trace at any size."""

import contextlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmstvit.errors import UserError

from .metadata import read_preprocessing

# Name of the logits at the size of the original image, for the check.
RESIZED = 'logits at the original size'
ADVICE = 'Export its backbone alone with --features.'


class Program(nn.Module):
    """A model to be exported: an input ``image``, (B, 3, H, W), and named outputs.

    Args:
        model: The model in evaluation mode. :meth:`simplify` changes it.
        shape: Height and width of the input if they are fixed.

    Attributes:
        settings: Fields of the metadata that the model decides. The padding to ``size_divisor`` is in the program.
        task: See :class:`~mmstvit.deployment.metadata.Metadata`.
        outputs: Meaning of each output, by name.
        axes: Names of the axes of each output that can be dynamic.
    """

    task: str
    outputs: dict[str, str]
    axes: dict[str, dict[int, str]]

    def __init__(self, model: nn.Module, shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.model, self.shape = model, shape
        self.settings = read_preprocessing(model.data_preprocessor)

    def pad(self, image: Tensor) -> Tensor:
        """Pad an image as the data preprocessor does."""
        divisor = self.settings['size_divisor']
        if divisor == 1:
            return image
        height, width = image.shape[2:]
        return F.pad(image, (0, -width % divisor, 0, -height % divisor), value=self.settings['pad_value'])

    def pad_to_shape(self, image: Tensor) -> Tensor:
        """Pad images to the fixed shape."""
        missing = [full - side for full, side in zip(self.shape or image.shape[2:], image.shape[2:], strict=True)]
        return F.pad(image, (0, missing[1], 0, missing[0]), value=self.settings['pad_value'])

    def inputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return the inputs of the program for images, by name."""
        return {'image': self.pad_to_shape(image)}

    def reference(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the outputs as the library does, before :meth:`simplify`."""
        return dict(zip(self.outputs, self(image), strict=True))

    def thresholds(self, image: Tensor) -> list[float]:
        """Return the lowest scores of objects at which the file is checked; the last one is the model's own."""
        return [0.0]

    def set_threshold(self, score: float) -> None:
        """Set the lowest score of objects."""

    @torch.no_grad()
    def min_side(self) -> int:
        """Return the smallest power of two that the model takes as height and width; call before :meth:`simplify`."""
        for side in (2**power for power in range(10)):
            with contextlib.suppress(Exception):  # models refuse in all ways
                self(torch.zeros(1, 3, side, side))
                return side
        raise ValueError('no square image of 512 pixels or less was accepted.')

    def simplify(self) -> None:
        """Reparameterize the model, and replace what exporters cannot express for all sizes."""
        for module in [*self.model.modules()]:
            if hasattr(module, 'switch_to_deploy'):
                module.switch_to_deploy()
            for name, child in module.named_children():
                if isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                    setattr(module, name, SlicedPool(child.output_size))


class SlicedPool(nn.Module):
    """Adaptive average pooling by slices, which keeps dynamic sizes; the values are those of PyTorch.

    Args:
        output_size: Height and width of the output, or one number for both.
    """

    def __init__(self, output_size: int | tuple[int, int]) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) -> (B, C, *output_size)."""
        rows, columns = (
            [(i * size // count, ((i + 1) * size + count - 1) // count) for i in range(count)]
            for size, count in zip(x.shape[2:], self.output_size, strict=True)
        )
        means = [x[:, :, top:bottom, left:right].mean(dim=(2, 3)) for top, bottom in rows for left, right in columns]
        return torch.stack(means, dim=2).unflatten(2, self.output_size)


class Features(Program):
    """The backbone of a model: its feature maps.

    Args:
        model: The model.
        shape: Height and width of the input if they are fixed.
        probe: Height and width of an image that the backbone takes.
    """

    task = 'features'

    def __init__(self, model: nn.Module, shape: Sequence[int] | None, probe: Sequence[int]) -> None:
        super().__init__(model, shape)
        self.model = model.backbone
        count = len(self.model(torch.zeros(1, 3, *probe)))
        self.outputs = {f'features_{i}': f'feature map {i} of the backbone, (B, C, h, w)' for i in range(count)}
        self.axes = {name: {0: 'batch', 2: f'height_{i}', 3: f'width_{i}'} for i, name in enumerate(self.outputs)}

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) -> one map (B, C, h, w) for each output."""
        return tuple(self.model(self.pad(image)))


class Classifier(Program):
    """An image classifier of MMPreTrain: logits or probabilities.

    Args:
        model: The model.
        shape: Height and width of the input if they are fixed.
        probabilities: Give the softmax of the logits.

    Raises:
        UserError: It is a model of another kind.
    """

    task = 'classification'

    def __init__(self, model: nn.Module, shape: Sequence[int] | None = None, probabilities: bool = False) -> None:
        from mmpretrain.models import ClsHead

        super().__init__(model, shape)
        kind = type(model).__name__
        if kind != 'ImageClassifier' or not isinstance(getattr(model, 'head', None), ClsHead):
            raise UserError(
                f'{kind} cannot be exported: it must be an ImageClassifier with one label per image.', ADVICE
            )
        self.probabilities = probabilities
        name = 'probabilities' if probabilities else 'logits'
        self.outputs = {name: f'{name} of the classes, (B, classes)'}
        self.axes = {name: {0: 'batch'}}

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Map (B, 3, H, W) -> (B, classes)."""
        logits = self.model(self.pad(image), mode='tensor')
        return (logits.softmax(dim=1) if self.probabilities else logits,)


class Segmentor(Program):
    """A segmentor of MMSegmentation: logits of every pixel of the image.

    Args:
        model: The model.
        shape: Height and width of the input if they are fixed; smaller images are padded then.

    Raises:
        UserError: It is a model of another kind, or predicts images in windows.
    """

    task = 'segmentation'
    outputs: dict[str, str] = {'logits': 'logits of the classes for every pixel of the input, (B, classes, H, W)'}  # noqa: RUF012
    axes: dict[str, dict[int, str]] = {'logits': {0: 'batch', 2: 'height', 3: 'width'}}  # noqa: RUF012

    def __init__(self, model: nn.Module, shape: Sequence[int] | None = None) -> None:
        from mmseg.models.decode_heads.decode_head import BaseDecodeHead

        super().__init__(model, shape)
        kind, head = type(model).__name__, getattr(model, 'decode_head', None)
        if kind != 'EncoderDecoder' or not isinstance(head, BaseDecodeHead) or head.out_channels == 1:
            raise UserError(
                f'{kind} with {type(head).__name__} cannot be exported: it must be an EncoderDecoder whose head '
                f'predicts a map of logits for two classes or more.',
                ADVICE,
            )
        if model.test_cfg.get('mode') != 'whole':
            raise UserError(
                'the model predicts images in windows (model.test_cfg.mode=slide), an exported file as a whole.',
                'Export it with --cfg-options model.test_cfg.mode=whole',
            )
        self.settings['align_corners'] = bool(head.align_corners)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Map (B, 3, H, W) -> (B, classes, H, W)."""
        x = self.pad(image)
        head = self.model.decode_head
        logits = head(self.model.extract_feat(x))
        logits = F.interpolate(logits, size=x.shape[2:], mode='bilinear', align_corners=head.align_corners)
        return (logits[:, :, : image.shape[2], : image.shape[3]],)

    def reference(self, image: Tensor) -> dict[str, Tensor]:
        """Compute the logits as MMSegmentation does, also those for a larger original image."""
        from mmseg.structures import SegDataSample

        x = self.pad(self.pad_to_shape(image))
        logits = self.model.encode_decode(x, [dict(img_shape=x.shape[2:])])[:, :, : image.shape[2], : image.shape[3]]
        size = original_size(image.shape[2:])
        samples = [SegDataSample(metainfo=dict(ori_shape=size)) for _ in image]
        samples = self.model.postprocess_result(logits, samples)
        return {'logits': logits, RESIZED: torch.stack([sample.seg_logits.data for sample in samples])}


def original_size(size: Sequence[int]) -> tuple[int, int]:
    """Return height and width of an image that was resized to ``size``, to check what users get."""
    return round(size[0] * 1.4), round(size[1] * 1.7)
