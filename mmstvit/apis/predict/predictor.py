"""The model of a checkpoint with its test pipeline and class names."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace

import cv2
import numpy as np
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, DefaultScope
from mmengine.structures import BaseDataElement
from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from mmstvit.compat import registered_types_only
from mmstvit.datasets.images import UnreadableError, find_readers
from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.dependencies import LIBRARIES, require_library
from mmstvit.drawing import Color, class_colors, to_rgb
from mmstvit.engine.runner import command_options, factory, requirements
from mmstvit.errors import CheckpointError, UserError
from mmstvit.fileio import (
    Checkpoint,
    ImageError,
    check_config,
    check_pixels,
    limited_images,
    load_weights,
    open_checkpoint,
    unwrap,
)
from mmstvit.nodes import as_list, type_name

from ..config import complete_config, read_config
from .inputs import Source, read_frames

# Parts of a config that are built to predict.
_PARTS = ('model', 'data_preprocessor', 'tta_model', 'tta_pipeline')
_NAME = 'Name the config of the training run: --config FILE'
_CLASSES = 'Name them: --cfg-options test_dataloader.dataset.metainfo.classes="[…]"'


@dataclass
class Picture:
    """A decoded image or frame of a video.

    Args:
        source: The file.
        name: Name in the results: that of the file; ``video.mp4/000012`` for a frame.
        image: The decoded image, as the pipeline of the config reads it.
    """

    source: Source
    name: str
    image: np.ndarray

    @property
    def rgb(self) -> np.ndarray:
        """The image for display."""
        return to_rgb(self.image)


class Predictor:
    """A model and the test pipeline of its config, without annotations.

    Args:
        cfg: The config.
        model: The model with its weights.
        classes: Names of the classes.
        colors: RGB color of each class.

    Attributes:
        steps: Config of the pipeline.
    """

    def __init__(self, cfg: Config, model: nn.Module, classes: list[str], colors: list[Color]) -> None:
        self.scope = cfg.default_scope
        self.model, self.classes, self.colors = model, classes, colors
        try:
            self.steps = _without_annotations(_inner_dataset(cfg)['pipeline'])
            pipeline = Compose(self.steps)
        except Exception as error:  # of any library that a transform needs
            raise UserError(f'the test pipeline of the config cannot be built: {error}', _NAME) from error
        loader = pipeline.transforms.pop(0)
        if not isinstance(loader, LoadImageFromFile) or type(loader).transform is not LoadImageFromFile.transform:
            raise UserError(
                f'predict.py needs a test pipeline that begins with LoadImageFromFile, but that of the config begins '
                f'with {type(loader).__name__}.'
            )
        self.pipeline, self._loader, (self._reader,) = pipeline, loader, find_readers([loader])

    def read(self, source: Source) -> Iterator[Picture]:
        """Decode an image, or the frames of a video; raises UnreadableError."""
        if not source.is_video:
            yield Picture(source, source.name, self._reader.read(str(source.path)))
            return
        for index, frame in enumerate(read_frames(source.path)):
            gray = self._reader.color_type.startswith('gray')
            image = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) if gray else frame
            yield Picture(source, f'{source.name}/{index:06}', image)

    def prepare(self, picture: Picture) -> dict:
        """Run the pipeline on an image.

        Raises:
            UnreadableError: It becomes too large, or the model needs another number of channels.
        """
        image = picture.image.astype(np.float32) if self._loader.to_float32 else picture.image.copy()
        shape = image.shape[:2]
        data = dict(img_path=str(picture.source.path), img_id=0, sample_idx=0, seg_fields=[], img=image)
        try:
            with limited_images():
                data = self.pipeline(dict(data, img_shape=shape, ori_shape=shape, height=shape[0], width=shape[1]))
            for view in as_list(data['inputs']):
                check_pixels(*view.shape[-2:])
        except ImageError as error:
            raise UnreadableError(f'the test pipeline enlarges it too much: {error}') from error
        preprocessor = unwrap(self.model).data_preprocessor
        channels = as_list(data['inputs'])[0].shape[0]
        needed = getattr(preprocessor, 'mean', torch.empty(0)).numel()
        if needed > 1 and channels != needed:
            raise UnreadableError(f'the image has {channels} channels, but the model needs {needed}')
        return data

    def locate(self, picture: Picture, point: tuple[int, int]) -> tuple[int, int]:
        """Return column and row, in the prepared image, of a point of the decoded image.

        An image with one peak at the point goes through the pipeline, and the peak is looked for in the result. This
        works for any resize or crop.

        Raises:
            UserError: The point is outside the image, or cropped away.
        """
        (height, width), (x, y) = picture.image.shape[:2], point
        if not (0 <= x < width and 0 <= y < height):
            raise UserError(f'the point {x} {y} is outside the image of {width}×{height} pixels (x y, from 0).')
        distances = np.hypot(np.arange(width) - x, np.arange(height)[:, None] - y)
        cone = (255 * (1 - distances / (max(width, height) / 4))).clip(0).astype(np.uint8)
        cone = cone if picture.image.ndim == 2 else cone[..., None].repeat(picture.image.shape[2], -1)
        prepared = as_list(self.prepare(replace(picture, image=cone))['inputs'])[0].max(0).values
        top = (prepared == prepared.max()).nonzero().double().mean(0).round().int().tolist()
        if prepared[tuple(top)] < 240:
            raise UserError(f'the point {x} {y} is in the part of the image that the test pipeline crops away.')
        return top[1], top[0]

    @torch.no_grad()
    def predict(self, batch: Sequence[dict]) -> list[BaseDataElement]:
        """Predict a batch of prepared images."""
        return self.model.test_step(pseudo_collate(batch))


@contextlib.contextmanager
def load_predictor(
    checkpoint: str | None, config: str | None, cfg_options: Mapping | None, tta: bool, device: str, trust: bool
) -> Iterator[Predictor]:
    """Build the model of a checkpoint; use it inside the context, in which its library is the default scope.

    Args:
        checkpoint: File or address; None leaves the model of ``config`` untrained.
        config: Config, by path or name; None reads the one in the checkpoint, as data.
        cfg_options: Settings of the config to override.
        tta: Use test-time augmentation.
        device: ``'auto'``, or the name of a device of PyTorch.
        trust: Build whatever a config in the checkpoint names.

    Raises:
        UserError: Checkpoint, config or device cannot be used.
    """
    device = _find_device(device)
    source = Checkpoint('', {})
    if checkpoint is not None:
        requirements.check_checkpoint(checkpoint)
        source = open_checkpoint(checkpoint, trust=trust)
    with contextlib.ExitStack() as stack:
        if config is None:
            cfg = complete_config(_stored_config(source, trust), checkpoint, cfg_options)
            if not trust:
                stack.enter_context(registered_types_only())
        else:
            cfg = read_config(config, cfg_options)
            _set_test_data(cfg, config)
        stack.enter_context(DefaultScope.overwrite_default_scope(cfg.default_scope))
        command_options.apply_tta(cfg, SimpleNamespace(tta=tta))
        try:
            with contextlib.nullcontext() if trust or config is not None else _limited_size(source):
                model = factory.build_model(cfg)
        except UserError as error:
            if config is not None:
                raise
            raise UserError(error.problem, error.remedy or _NAME) from error
        if checkpoint is not None:
            load_weights(model, source, complete=True)
        classes, palette = _find_classes(cfg, source.meta, model)
        del source  # three times the memory of the model if it holds the state of an optimizer
        yield Predictor(cfg, model.to(device).eval(), classes, class_colors(classes, palette))


@contextlib.contextmanager
def _limited_size(checkpoint: Checkpoint) -> Iterator[None]:
    """Refuse models with far more modules or parameters than a checkpoint has weights for, while they are built."""
    modules = 10_000 + 100 * len(checkpoint.weights)
    values = 10_000_000 + 10 * sum(tensor.numel() for tensor in checkpoint.weights.values())

    def count(parent: nn.Module, name: str, part: nn.Module | nn.Parameter | None) -> None:
        nonlocal modules, values
        modules -= 1
        values -= part.numel() if isinstance(part, nn.Parameter) else 0
        if modules < 0 or values < 0:
            raise CheckpointError(f'it is much larger than the {len(checkpoint.weights)} weights in the checkpoint.')

    with register_module_module_registration_hook(count), register_module_parameter_registration_hook(count):
        yield


def _find_device(name: str) -> torch.device:
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        return torch.zeros((), device=name).device
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        raise UserError(f'--device {name} cannot be used: {str(error).splitlines()[0]}') from error


def _stored_config(checkpoint: Checkpoint, trust: bool) -> Config:
    """Return what is needed of the config in a checkpoint; raises CheckpointError if it is missing or unsafe."""
    config = checkpoint.config
    if config is None:
        raise CheckpointError(f'{checkpoint.path} does not hold its config.', _NAME)
    content = ConfigDict(config)
    _set_test_data(content, f'the config in {checkpoint.path}')
    dataset = _inner_dataset(content)
    parts = _without_initial_weights({key: content[key] for key in _PARTS if content.get(key) is not None})
    if not trust:
        scopes = [scope for scope in LIBRARIES if scope == content.get('default_scope')]  # others are refused later
        for scope in scopes:
            require_library(scope)
        for key, part in {**parts, 'test_dataloader.dataset.pipeline': dataset['pipeline']}.items():
            check_config(part, key, *scopes)
        check_config({'type': dataset.get('type')}, 'test_dataloader.dataset')  # only its classes are looked at
    kept = {key: dataset[key] for key in ('type', 'pipeline', 'metainfo', 'classes') if key in dataset}
    loader = dict(dataset=kept)
    return Config(dict(parts, test_dataloader=loader, default_scope=content.get('default_scope')))


def _without_initial_weights(node: object) -> object:
    """Return a part of a config without what only initializes weights, which often names files."""
    if isinstance(node, Mapping):
        kept = {key: value for key, value in node.items() if key not in ('init_cfg', 'pretrained')}
        return {key: _without_initial_weights(value) for key, value in kept.items()}
    return type(node)(map(_without_initial_weights, node)) if isinstance(node, (list, tuple)) else node


def _set_test_data(cfg: Mapping, name: str) -> None:
    """Use the data for validation where a config has none for tests; raises UserError if there are neither."""
    cfg['test_dataloader'] = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    loader = cfg['test_dataloader']
    found = isinstance(loader, Mapping) and isinstance(loader.get('dataset'), Mapping)
    if not found or not _inner_dataset(cfg).get('pipeline'):
        raise UserError(f'{name} has no test_dataloader with the pipeline by which images are read.', _NAME)


def _inner_dataset(cfg: Mapping) -> Mapping:
    return next(inner_datasets(cfg['test_dataloader']['dataset']))[1]


def _without_annotations(node: object) -> object:
    """Return a pipeline without transforms that load annotations, and without lists that become empty by that."""
    if isinstance(node, (list, tuple)):
        parts = [_without_annotations(part) for part in node if not _loads_annotations(part)]
        return [part for part in parts if part != []]
    if isinstance(node, Mapping):
        return {key: _without_annotations(value) if key == 'transforms' else value for key, value in node.items()}
    return node


def _loads_annotations(transform: object) -> bool:
    name = type_name(transform) if isinstance(transform, Mapping) else ''
    return name.startswith('Load') and 'Annotation' in name


def _find_classes(cfg: Config, meta: Mapping, model: nn.Module) -> tuple[list[str], object]:
    """Return names and palette of the classes: those of the config, else those that the checkpoint stores.

    Raises:
        UserError: Their number is not that of the heads.
    """
    dataset = _inner_dataset(cfg)
    kind = DATASETS.get(dataset.type) if isinstance(dataset.get('type'), str) else dataset.get('type')
    own = {**(getattr(kind, 'METAINFO', None) or {}), **(dataset.get('metainfo') or {})}
    if dataset.get('classes'):
        own['classes'] = dataset['classes']
    stored = meta.get('dataset_meta') or meta
    stored = {str(key).lower(): value for key, value in stored.items()}
    counts = {part.num_classes for part in model.modules() if isinstance(getattr(part, 'num_classes', None), int)}
    for names in (own, stored):
        if isinstance(names.get('classes'), (list, tuple)):  # elsewhere a file with names, or none
            classes = [str(name) for name in names['classes']]
            break
    else:
        if not counts:
            raise UserError('neither config nor checkpoint names the classes.', _CLASSES)
        return [str(i) for i in range(max(counts))], None
    if counts and len(classes) not in counts:
        raise UserError(
            f'{len(classes)} class names are given ({", ".join(classes[:3])}, …), but the heads have '
            f'num_classes={" and ".join(map(str, sorted(counts)))}.',
            _CLASSES,
        )
    return classes, own.get('palette') or stored.get('palette')
