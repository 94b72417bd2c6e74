"""Metadata of an exported file: how its images are prepared, and what its outputs mean."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields

import numpy as np
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

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Prepare an image: (3, H, W) in the order blue, green, red, as OpenCV reads it -> (3, H, W) of float32."""
        if self.color_order == 'RGB':
            image = image[::-1]
        mean, std = (np.array(values, np.float32).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return (image.astype(np.float32) - mean) / std


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
    mask_threshold: float = 0.5
    version: str = field(default=__version__)

    def dumps(self) -> str:
        """Return the text that is stored."""
        content = asdict(self)
        return json.dumps(content.pop('preprocessing') | content, ensure_ascii=False)

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
