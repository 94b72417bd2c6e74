"""Metadata of an exported file: how its images are prepared, and what its outputs mean."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

from mmengine.model import BaseDataPreprocessor
from torch import nn

from mmstvit.errors import UserError
from mmstvit.fileio import plain_data
from mmstvit.version import __version__

KEY = 'mmstvit'  # of the metadata in a file
# Task -> the names that its outputs may have; those of feature maps are free.
TASKS: dict[str, tuple[set[str], ...]] = {
    'features': (),
    'classification': ({'logits'}, {'probabilities'}),
    'segmentation': ({'logits'},),
    'detection': ({'boxes', 'scores', 'labels'}, {'boxes', 'scores', 'labels', 'masks'}),
}
COLOR_ORDERS = ('RGB', 'BGR')


@dataclass(frozen=True)
class Preprocessing:
    """Preparation of a decoded image, (H, W, 3), for the input of a file.

    Args:
        color_order: One of :data:`COLOR_ORDERS`, the order of the channels.
        mean: Per channel, subtracted.
        std: Per channel, the divisor after that.
        size_divisor: The file pads the right and the bottom of its input to a multiple of it by itself.
        pad_value: Value of the padding.
    """

    color_order: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size_divisor: int = 1
    pad_value: float = 0.0

    @classmethod
    def of(cls, preprocessor: nn.Module) -> 'Preprocessing':
        """Read the preparation from a data preprocessor of MMEngine, MMDetection, MMSegmentation or MMPreTrain.

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
        return cls(
            'RGB' if rgb else 'BGR',
            tuple(preprocessor.mean.flatten().tolist()) if normalized else (0.0, 0.0, 0.0),
            tuple(preprocessor.std.flatten().tolist()) if normalized else (1.0, 1.0, 1.0),
            divisor or 1,
            float(getattr(preprocessor, 'pad_val', getattr(preprocessor, 'pad_value', 0))),
        )


@dataclass(frozen=True)
class Metadata:
    """Description of an exported file, stored in it as JSON.

    Args:
        task: One of :data:`TASKS`.
        library: The library of the config, by which predictions are drawn and evaluated.
        outputs: Meaning of each output, by name, in their order.
        preprocessing: Preparation of the input.
        classes: Names of the classes, by label.
        palette: RGB color of each class.
        pipeline: The test pipeline of the config, without annotations, as the text of a Python literal; empty if it
            cannot be written down. tools/predict.py reads images by it.
        shape: Height and width of the input if they are fixed. A detector takes smaller images, padded at the right and
            the bottom, with their own height and width as a second input, ``valid``.
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
    preprocessing: Preprocessing
    classes: Sequence[str] = ()
    palette: Sequence[Sequence[int]] = ()
    pipeline: str = ''
    shape: Sequence[int] | None = None
    min_side: int = 1
    align_corners: bool = False
    score_thr: float = 0.0
    nms_iou: float = 1.0
    max_per_img: int = 0
    mask_threshold: float = 0.5
    version: str = field(default=__version__)

    def dumps(self) -> str:
        """Return the text that is stored."""
        content = asdict(self)
        return json.dumps(content.pop('preprocessing') | content, ensure_ascii=False)

    def dumps_with_pipeline(self) -> str:
        """Return the text for programs without Python: the pipeline is JSON, too."""
        content = json.loads(self.dumps()) | dict(pipeline=ast.literal_eval(self.pipeline or '[]'))
        return json.dumps(content, ensure_ascii=False, indent=1)

    @classmethod
    def loads(cls, text: str | None, path: object) -> 'Metadata':
        """Read the text that is stored.

        Raises:
            UserError: It is not that of :meth:`dumps`.
        """
        try:
            content = json.loads(text)
            parts = {f.name: content.pop(f.name) for f in fields(Preprocessing)}
            parts |= {name: tuple(map(float, parts[name])) for name in ('mean', 'std')}
            names = TASKS[content['task']]
            if not all(isinstance(name, str) for name in content.get('classes', ())):
                raise ValueError
            for entry in fields(cls):  # a number stays a number
                if isinstance(entry.default, (int, float)) and not isinstance(
                    content.get(entry.name, entry.default), (int, float)
                ):
                    raise ValueError
            if content.get('shape') and [type(side) for side in content['shape']] != [int, int]:
                raise ValueError
            if (names and set(content['outputs']) not in names) or parts['color_order'] not in COLOR_ORDERS:
                raise ValueError
            return cls(preprocessing=Preprocessing(**parts), **content)
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(
                f'{path} has no metadata of mmstvit, or those of another version.',
                'Export the model with tools/deployment/export.py.',
            ) from error


def pipeline_text(pipeline: Sequence[Mapping]) -> str:
    """Return a pipeline as the text of a Python literal; an empty string if it holds classes or functions."""
    try:
        return repr(plain_data(pipeline))
    except TypeError:
        return ''
