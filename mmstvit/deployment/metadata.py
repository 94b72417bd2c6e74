"""Metadata of an exported file: how its images are prepared, and what its outputs mean."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from mmengine.model import BaseDataPreprocessor
from torch import nn

from mmstvit.dependencies import LIBRARIES
from mmstvit.errors import UserError
from mmstvit.fileio import plain_data
from mmstvit.version import __version__

KEY = 'mmstvit'  # of the metadata in a file
# Task -> the names that its outputs may have, besides 'images'; those of feature maps are free.
TASKS: dict[str, tuple[set[str], ...]] = {
    'features': (),
    'classification': ({'logits'}, {'probabilities'}),
    'segmentation': ({'logits'},),
    'detection': ({'boxes', 'scores', 'labels'}, {'boxes', 'scores', 'labels', 'masks'}),
}
PADDED = ('detection', 'segmentation')  # tasks whose smaller images are padded to a fixed size
COLOR_ORDERS = ('RGB', 'BGR')


@dataclass(frozen=True)
class Metadata:
    """Description of an exported file, stored in it and beside it as JSON.

    Args:
        task: One of :data:`TASKS`.
        library: The library of the config, by which predictions are drawn and evaluated.
        outputs: Meaning of each output, by name, in their order.
        color_order: One of :data:`COLOR_ORDERS`, the order of the channels of the input.
        mean: Per channel, subtracted from a decoded image.
        std: Per channel, the divisor after that.
        size_divisor: The file pads the right and the bottom of its input to a multiple of it by itself.
        pad_value: Value of the padding.
        classes: Names of the classes, by label.
        palette: RGB color of each class.
        pipeline: The test pipeline of the config, without annotations; empty if it holds classes or functions.
            tools/predict.py reads images by it.
        shape: Height and width of the input if they are fixed. Detectors and segmentors take smaller images, padded at
            the right and the bottom; a detector with their own height and width as a second input, ``valid``.
        min_side: Smallest height and width of an image.
        align_corners: How logits of a segmentor are resized.
        score_thr: Lowest score of an object. The file applies this and the next two by itself.
        nms_iou: Largest overlap of two objects of a class.
        max_per_img: Largest number of objects.
        mask_threshold: Lowest probability of a pixel of a mask.
        version: Version of mmstvit that wrote the file.
    """

    task: str
    library: str
    outputs: dict[str, str]
    color_order: str
    mean: Sequence[float]
    std: Sequence[float]
    size_divisor: int = 1
    pad_value: float = 0.0
    classes: Sequence[str] = ()
    palette: Sequence[Sequence[int]] = ()
    pipeline: Sequence[dict] = ()
    shape: Sequence[int] | None = None
    min_side: int = 1
    align_corners: bool = False
    score_thr: float = 0.0
    nms_iou: float = 1.0
    max_per_img: int = 0
    mask_threshold: float = 0.5
    version: str = __version__

    @property
    def pads(self) -> bool:
        """True if smaller images are padded to the fixed size of the input."""
        return self.shape is not None and self.task in PADDED

    def dumps(self) -> str:
        """Return the text that is stored."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=1)

    @classmethod
    def loads(cls, text: str | None, path: object) -> 'Metadata':
        """Read the text that is stored.

        Raises:
            UserError: It is not that of :meth:`dumps`.
        """
        try:
            content = json.loads(text)
            found = cls(**content | dict(pipeline=_with_tuples(content['pipeline'])))
            if not found._is_sound():
                raise ValueError
            return found
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise UserError(
                f'{path} has no metadata of mmstvit, or those of another version.',
                'Export the model with tools/deployment/export.py.',
            ) from error

    def _is_sound(self) -> bool:
        """Return True if the values are of the types that they must have; the file may come from anybody."""
        numbers = [getattr(self, entry.name) for entry in fields(self) if isinstance(entry.default, (int, float))]
        for channels in (self.mean, self.std):
            numbers += channels
        texts = [*self.outputs, *self.classes]
        names = TASKS[self.task]
        return (
            all(map(math.isfinite, numbers))
            and all(isinstance(value, str) for value in texts)
            and all(isinstance(step, dict) for step in self.pipeline)
            and self.color_order in COLOR_ORDERS
            and self.library in LIBRARIES
            and (self.shape is None or [type(side) for side in self.shape] == [int, int])
            and (not names or self.outputs.keys() - {'images'} in names)
        )


def read_preprocessing(preprocessor: nn.Module) -> dict[str, object]:
    """Read the fields of the preparation from a data preprocessor of MMEngine or of one of the three libraries.

    Raises:
        UserError: It does what the metadata cannot express.
    """
    if not isinstance(preprocessor, BaseDataPreprocessor):
        raise UserError(f'the data preprocessor {type(preprocessor).__name__} cannot be exported.')
    test_cfg = getattr(preprocessor, 'test_cfg', None) or {}
    if test_cfg.get('size'):
        raise UserError(
            'model.data_preprocessor.test_cfg.size pads every image to one size, which an exported file does not.',
            'Remove it with --cfg-options model.data_preprocessor.test_cfg=None',
        )
    rgb = getattr(preprocessor, '_channel_conversion', getattr(preprocessor, 'to_rgb', False))
    normalized = getattr(preprocessor, '_enable_normalize', False)
    # MMSegmentation pads by test_cfg, and inherits a divisor that it does not use.
    divisor = test_cfg.get('size_divisor') if hasattr(preprocessor, 'test_cfg') else preprocessor.pad_size_divisor
    return dict(
        color_order='RGB' if rgb else 'BGR',
        mean=preprocessor.mean.flatten().tolist() if normalized else [0.0, 0.0, 0.0],
        std=preprocessor.std.flatten().tolist() if normalized else [1.0, 1.0, 1.0],
        size_divisor=divisor or 1,
        pad_value=float(getattr(preprocessor, 'pad_val', getattr(preprocessor, 'pad_value', 0))),
    )


def plain_pipeline(pipeline: Sequence[Mapping]) -> list[dict]:
    """Return a pipeline as it comes back from JSON; an empty list if it holds classes or functions."""
    try:
        return _with_tuples(json.loads(json.dumps(plain_data(pipeline))))
    except TypeError:
        return []


def _with_tuples(node: object) -> object:
    """Return a part of a pipeline from JSON with tuples of numbers, as transforms expect sizes, in place of lists."""
    if isinstance(node, dict):
        return {key: _with_tuples(value) for key, value in node.items()}
    if isinstance(node, list):
        numbers = node and all(isinstance(value, (int, float)) for value in node)
        return tuple(node) if numbers else [_with_tuples(value) for value in node]
    return node
