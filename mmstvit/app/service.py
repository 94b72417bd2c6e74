"""Models and predictions of the page, without the server."""

import contextlib
import functools
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement

from mmstvit.apis.predict.inputs import Source
from mmstvit.apis.predict.predictor import Predictor, load_predictor
from mmstvit.checkpoint import to_mmstvit
from mmstvit.compat import registered_types_only
from mmstvit.datasets.images import UnreadableError
from mmstvit.drawing import Color
from mmstvit.errors import UserError
from mmstvit.fileio import safe_loading
from mmstvit.models.stvit import MIN_SIDE
from mmstvit.visualization import Attention, SuperTokens, attention_of, image_of, super_tokens

from .pictures import draw_maps, draw_prediction, legible
from .uploads import MODEL_PIXELS, Upload

# The run of `make demo`, whose model is the first choice.
DEMO = 'mask-rcnn_stvit-nano_fpn_scenes'
MODELS, PREDICTIONS = 2, 16  # in memory
Block = tuple[int, int]  # stage and block, from 0
Version = tuple[Path, int, int]  # checkpoint, time of its last change, size


@dataclass(frozen=True)
class Prediction:
    """Prediction of one model for an image, with its super tokens.

    Args:
        classes: Names of the classes.
        colors: Color of each class.
        image: The decoded file, RGB.
        result: What the model predicts.
        size: Width and height after the test pipeline.
        sample: The image after the test pipeline.
        seen: The image as the model sees it, resized for display.
        tokens: Super tokens of the blocks without global attention.
        seconds: Time that it took, with the loading of the model.
    """

    classes: Sequence[str]
    colors: Sequence[Color]
    image: np.ndarray
    result: BaseDataElement
    size: tuple[int, int]
    sample: dict
    seen: np.ndarray
    tokens: dict[Block, SuperTokens]
    seconds: float


@dataclass(frozen=True)
class View:
    """Pictures and texts that the page shows of an image.

    Args:
        prediction: The prediction.
        attentions: Attention of the point, by block.
        pixel: The point, as the model sees the image.
        title: Model and image, for the line at the top.
    """

    prediction: Prediction
    attentions: dict[Block, Attention]
    pixel: tuple[int, int]
    title: str

    def draw(self, stage: int, block: int, score: float) -> dict[str, object]:
        """Draw the pictures of a block, and describe them.

        Args:
            stage: The stage, from 0.
            block: The block, from 0; the last one of the stage if there are fewer.
            score: Lowest score of an object.
        """
        found, blocks = self.prediction, sum(of_stage == stage for of_stage, _ in self.attentions)
        if not blocks:
            raise UserError(f'The model has no stage {stage}.')
        block = min(max(block, 0), blocks - 1)
        attention, tokens = self.attentions[stage, block], found.tokens.get((stage, block))
        picture, heading, rows = draw_prediction(found.classes, found.colors, found.result, found.image, score)
        means, heat = draw_maps(found.seen, tokens, attention)
        grid, side = '{} × {}'.format(*attention.grid), attention.stride
        note = f'Stage {stage} has global attention: its {grid} tokens of {side} × {side} pixels are the super tokens.'
        if tokens:
            side *= tokens.stoken_size
            note = f'{grid} super tokens in their mean colors. At the start each is a cell of {side} × {side} pixels.'
        return dict(
            prediction=picture,
            seen=found.seen,
            tokens=means,
            heat=heat,
            heading=heading,
            rows=rows,
            blocks=blocks,
            block=block,
            note=note,
            heat_note='Stage {} block {}: attention of the point ({}, {}).'.format(stage, block, *self.pixel),
            step=[attention.stride / side for side in found.size],
            status=f'{self.title} · {found.size[0]} × {found.size[1]} for the model · {found.seconds:.2f} s',
        )


class Service:
    """Models and limits.

    One call computes at a time: super tokens are read by recorders in the model, the libraries have one default scope
    per process, and a second call would only share the same processor.

    Args:
        folder: Folder of the checkpoints; those outside are refused.
        device: ``'auto'``, or the name of a device of PyTorch.
    """

    def __init__(self, folder: Path, device: str = 'auto') -> None:
        self.folder, self.device = folder, device
        self._root = folder.resolve()
        self._lock = threading.Lock()
        self._load = functools.lru_cache(MODELS)(self._load)
        self._predict = functools.lru_cache(PREDICTIONS)(self._predict)
        self._attend = functools.lru_cache(PREDICTIONS)(self._attend)

    def checkpoints(self) -> list[str]:
        """Find the last and the best checkpoint of each run in the folder, newest first, the demo's before all."""
        found: dict[tuple[Path, bool], tuple[float, Path]] = {}
        for path in self._root.rglob('*.pth'):
            with contextlib.suppress(OSError):  # a broken link, or a file that a training run has just removed
                if path.resolve().is_relative_to(self._root):
                    key, entry = (path.parent, path.name.startswith('best_')), (path.stat().st_mtime, path)
                    found[key] = max(found.get(key, entry), entry)
        ordered = [path for _, path in sorted(found.values(), reverse=True)]
        ordered.sort(key=lambda path: path.parent.name != DEMO)
        return [path.relative_to(self._root).as_posix() for path in ordered]

    def find_checkpoint(self, name: str) -> Path:
        """Return the file of a checkpoint, named by any path that leads into the folder.

        Raises:
            UserError: It is not in the folder.
        """
        for base in (self._root, Path.cwd()):
            with contextlib.suppress(OSError, ValueError):  # no path at all
                path = (base / name.strip()).resolve()
                if path.is_relative_to(self._root) and path.is_file():
                    return path
        raise UserError(
            f'There is no checkpoint {name} in the folder {self.folder}.',
            'Choose one in the list; if it is empty, run make demo and reload this page. Files outside of the folder, '
            'and links to them, are refused; the option --dir names another folder.',
        )

    def look(self, checkpoint: str, image: Upload, point: tuple[float, float] = (0.5, 0.5)) -> View:
        """Predict an image, and read the attention of a point; what was read before is not computed again.

        Args:
            checkpoint: Path of a checkpoint in the folder.
            image: An image.
            point: Position in the image, as shares of its width and height.

        Raises:
            UserError: Checkpoint or image cannot be used.
        """
        path = self.find_checkpoint(checkpoint)
        status = path.stat()
        version = path, status.st_mtime_ns, status.st_size
        with self._lock:
            found = self._predict(version, image)
            x, y = (min(int(share * side), side - 1) for share, side in zip(point, found.size, strict=True))
            attentions = self._attend(version, image, (x, y))
        return View(found, attentions, (x, y), f'{path.relative_to(self._root).as_posix()} · {image.note}')

    def _predict(self, version: Version, image: Upload) -> Prediction:
        start = time.perf_counter()
        with self._model(version) as predictor:
            try:
                file = next(predictor.read(Source(image.path, image.name, image.path.stem)))
                sample = predictor.prepare(file)
            except UnreadableError as error:
                raise UserError(f'{image.name}: {error}.', 'Use another image.') from error
            seen = image_of(sample)
            height, width = seen.shape[:2]
            if width * height > MODEL_PIXELS or min(width, height) < MIN_SIDE:
                raise UserError(
                    f'{image.name} has {width} × {height} pixels after the test pipeline of this model. It takes '
                    f'{MIN_SIDE} × {MIN_SIDE} to {MODEL_PIXELS:,} pixels.',
                    'Use another image.',
                )
            (result,) = predictor.predict([sample])
            tokens = {(t.stage, t.block): t for t in super_tokens(predictor.model, sample)}
        seconds = time.perf_counter() - start
        names, size = (predictor.classes, predictor.colors), (width, height)
        return Prediction(*names, file.rgb, result, size, sample, legible(seen, 1024), tokens, seconds)

    def _attend(self, version: Version, image: Upload, pixel: tuple[int, int]) -> dict[Block, Attention]:
        sample = self._predict(version, image).sample
        with self._model(version) as predictor:
            return {(a.stage, a.block): a for a in attention_of(predictor.model, sample, pixel)}

    @contextlib.contextmanager
    def _model(self, version: Version) -> Iterator[Predictor]:
        """Lend a model, with its library as the default scope."""
        predictor = self._load(version)
        with DefaultScope.overwrite_default_scope(predictor.scope), registered_types_only():
            yield predictor

    def _load(self, version: Version) -> Predictor:
        """Load a checkpoint with the config in it, both as data."""
        name = str(self.folder / version[0].relative_to(self._root))
        try:
            with (
                safe_loading(False, to_mmstvit),
                load_predictor(name, None, None, tta=False, device=self.device, trust=False) as predictor,
            ):
                return predictor
        except UserError as error:
            if error.problem.startswith('--device'):
                raise
            # The other remedies are options of predict.py, which the page does not have.
            remedy = 'The page needs a checkpoint that a training run of MMEngine has saved: it holds its config.'
            raise UserError(error.problem.replace(str(self._root), str(self.folder)), remedy) from error
