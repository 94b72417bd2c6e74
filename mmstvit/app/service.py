"""Predictions, super tokens and attention of one image after the other, without Gradio.

Nothing here belongs to a user: what a user sees is in a :class:`View`, which the page keeps for each of its tabs.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from PIL import Image

from mmstvit.apis.predict.inputs import Source
from mmstvit.apis.predict.predictor import Predictor, load_predictor
from mmstvit.checkpoint import to_mmstvit
from mmstvit.compat import registered_types_only
from mmstvit.datasets.images import UnreadableError
from mmstvit.drawing import (
    Color,
    draw_boundaries,
    draw_map,
    draw_objects,
    fill_means,
    read_classes,
    read_map,
    read_objects,
    resize,
)
from mmstvit.errors import UserError
from mmstvit.fileio import IMAGE_SUFFIXES, safe_loading
from mmstvit.visualization import Attention, SuperTokens, attention_of, image_of, super_tokens, token_maps

# The run of `make demo`, whose model is the first choice.
DEMO = 'mask-rcnn_stvit-nano_fpn_scenes'
SCORE = 0.3  # lowest score of an object, as in predict.py
SIDE = 640  # longer side of a picture, in pixels
MODELS = 2  # models in memory
MAX_BYTES = 20 << 20
MAX_PIXELS = 16 << 20
MODEL_PIXELS = 2 << 20  # largest image after the test pipeline, which need not resize; a CPU takes minutes for more


@dataclass(frozen=True)
class Row:
    """A line below the picture of a prediction.

    Args:
        name: Name of the class.
        value: Score, or share of the pixels, from 0 to 1.
        text: The value as it is shown.
        color: Color of the class in the picture; None if it has none.
    """

    name: str
    value: float
    text: str
    color: Color | None = None


@dataclass
class View:
    """An image with all that one model says about it.

    Args:
        checkpoint: The checkpoint, below the allowed folder.
        sample: The image after the test pipeline.
        size: (width, height) of the file.
        picture: The image as the model sees it, RGB, with a longer side of ``SIDE``.
        prediction: The prediction, drawn.
        heading: Name of what the rows have.
        rows: Classes, objects or segments, the best or largest first.
        tokens: Super tokens by block; blocks with global attention have none.
        attention: Attention of the point, of all blocks.
        point: Column and row of a pixel, as the model sees it.
        times: Seconds by step.
    """

    checkpoint: str
    sample: dict
    size: tuple[int, int]
    picture: np.ndarray
    prediction: np.ndarray
    heading: str
    rows: list[Row]
    tokens: dict[tuple[int, int], SuperTokens]
    attention: dict[tuple[int, int], Attention]
    point: tuple[int, int]
    times: dict[str, float] = field(default_factory=dict)

    def depths(self) -> list[int]:
        """Return the number of blocks of each stage."""
        stages = [stage for stage, _ in self.attention]
        return [stages.count(stage) for stage in range(max(stages) + 1)]

    def draw_tokens(self, stage: int, block: int) -> np.ndarray:
        """Draw the super tokens of a block, each in its mean color; those of global attention are the tokens."""
        tokens = self.tokens.get((stage, block))
        if tokens is None:
            record = self.attention[stage, block]
            labels = record.enlarge(np.arange(record.weights.size).reshape(record.weights.shape))
        else:
            labels = token_maps.regions(tokens, self.picture.shape[:2])
        return draw_boundaries(fill_means(self.picture, labels), labels)

    def draw_attention(self, stage: int, block: int) -> np.ndarray:
        """Draw the attention of the point in a block."""
        return token_maps.draw_attention(self.picture, self.attention[stage, block])

    def to_point(self, x: float, y: float) -> tuple[int, int]:
        """Return the pixel, as the model sees it, at a position in the picture."""
        height, width = next(iter(self.attention.values())).size
        column, row = x * width / self.picture.shape[1], y * height / self.picture.shape[0]
        return min(max(int(column), 0), width - 1), min(max(int(row), 0), height - 1)


class Service:
    """Models and limits.

    One call computes at a time: super tokens are read by recorders in the model, the libraries have one default scope
    per process, and a second call would only share the same processor.

    Args:
        folder: Folder of the checkpoints; those outside are refused.
        device: ``'auto'``, or the name of a device of PyTorch.
        max_bytes: Size of the largest image file.
        max_pixels: Number of pixels of the largest image.
    """

    def __init__(self, folder: Path, device: str = 'auto', max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS):
        self.folder, self.device, self.max_bytes, self.max_pixels = folder, device, max_bytes, max_pixels
        self._root = folder.resolve()
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple, Predictor] = OrderedDict()

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
        """Return the file of a checkpoint; raises UserError if it is not in the folder.

        Args:
            name: Path below the folder, or any path that leads into it.
        """
        for base in (self._root, Path.cwd()):
            with contextlib.suppress(OSError, ValueError):  # no path at all
                path = (base / name.strip()).resolve()
                if path.is_relative_to(self._root) and path.is_file():
                    return path
        raise UserError(
            f'There is no file {name} in the folder {self.folder}.',
            'Files outside of it, and links to them, are refused; the option --dir names another folder.',
        )

    def check_image(self, path: Path) -> tuple[int, int]:
        """Return (width, height) of an image from its header; raises UserError if it is no image or too large."""
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise UserError(f'{path.name} is not an image file.', f'Use one of {", ".join(IMAGE_SUFFIXES)}.')
        size = path.stat().st_size
        if size > self.max_bytes:
            raise UserError(f'{path.name} has {size:,} bytes; the limit is {self.max_bytes:,}.', 'Use a smaller file.')
        try:
            with Image.open(path) as header:
                width, height = header.size
            too_large = width * height > self.max_pixels
        except Image.DecompressionBombError:
            too_large = True
        except Exception as error:  # Pillow raises all kinds of errors for damaged files
            raise UserError(f'{path.name} is damaged, or not an image.', 'Use a JPEG or PNG file.') from error
        if too_large:
            raise UserError(f'{path.name} has more than {self.max_pixels:,} pixels.', 'Use a smaller image.')
        return width, height

    def view(self, checkpoint: str, image: str | Path) -> View:
        """Predict an image, and read its super tokens and the attention of its center.

        Args:
            checkpoint: Path below the folder.
            image: An image file.

        Raises:
            UserError: Checkpoint or image cannot be used.
        """
        path, image = self.find_checkpoint(checkpoint), Path(image)
        size = self.check_image(image)
        with self._model(path) as (predictor, times):
            try:
                file = next(predictor.read(Source(image, image.name, image.stem)))
                sample = predictor.prepare(file)
            except UnreadableError as error:
                raise UserError(f'{image.name}: {error}.', 'Use another image.') from error
            seen = image_of(sample)
            if seen.shape[0] * seen.shape[1] > MODEL_PIXELS:
                raise UserError(
                    f'{image.name} has more than {MODEL_PIXELS:,} pixels after the test pipeline of this model.',
                    'Use a smaller image.',
                )
            with _timed(times, 'prediction'):
                (result,) = predictor.predict([sample])
                heading, rows, prediction = _draw(predictor, result, file.rgb)
            with _timed(times, 'super tokens'):
                tokens = {(t.stage, t.block): t for t in super_tokens(predictor.model, sample)}
            point = seen.shape[1] // 2, seen.shape[0] // 2
            attention = self._attend(predictor, sample, point, times)
        name, picture = path.relative_to(self._root).as_posix(), resize(seen, SIDE)
        return View(name, sample, size, picture, prediction, heading, rows, tokens, attention, point=point, times=times)

    def attend(self, view: View, point: tuple[int, int]) -> None:
        """Read the attention of another point; raises UserError if the checkpoint has gone."""
        with self._model(self.find_checkpoint(view.checkpoint)) as (predictor, times):
            view.attention = self._attend(predictor, view.sample, point, times)
        view.point, view.times['attention'] = point, times['attention']

    def _attend(
        self, predictor: Predictor, sample: dict, point: tuple[int, int], times: dict[str, float]
    ) -> dict[tuple[int, int], Attention]:
        with _timed(times, 'attention'):
            return {(a.stage, a.block): a for a in attention_of(predictor.model, sample, point)}

    @contextlib.contextmanager
    def _model(self, path: Path) -> Iterator[tuple[Predictor, dict[str, float]]]:
        """Lend the model of a checkpoint, loaded if it is not in memory, and a dictionary for the seconds of steps."""
        times: dict[str, float] = {}
        with self._lock:
            status = path.stat()
            key = path, status.st_mtime_ns, status.st_size
            if key not in self._models:
                while len(self._models) >= MODELS:
                    self._models.popitem(last=False)
                with _timed(times, 'loading'):
                    self._models[key] = self._load(path)
            self._models.move_to_end(key)
            predictor = self._models[key]
            with DefaultScope.overwrite_default_scope(predictor.scope), registered_types_only():
                yield predictor, times

    def _load(self, path: Path) -> Predictor:
        """Load a checkpoint with the config in it, both as data."""
        name = str(self.folder / path.relative_to(self._root))
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


@contextlib.contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    times[name] = time.perf_counter() - start


def _draw(predictor: Predictor, sample: BaseDataElement, image: np.ndarray) -> tuple[str, list[Row], np.ndarray]:
    """Return a heading, the rows and the picture of a prediction."""
    classes, colors, picture = predictor.classes, predictor.colors, resize(image, SIDE)
    if 'pred_instances' in sample:
        found = read_objects(sample.pred_instances, SCORE)
        drawn = draw_objects(picture, found, classes, colors, scale=picture.shape[1] / image.shape[1])
        scored = zip(found.labels, found.scores, strict=True)
        rows = [Row(classes[i], score, f'{score:.2f}', colors[i]) for i, score in scored]
        return f'Objects with a score of {SCORE} or more', sorted(rows, key=lambda row: -row.value), drawn
    if 'pred_sem_seg' in sample:
        labels = read_map(sample.pred_sem_seg)
        shares = np.bincount(labels.ravel(), minlength=len(classes))[: len(classes)] / labels.size
        order = [i for i in np.argsort(-shares, kind='stable') if shares[i]]
        rows = [Row(classes[i], float(shares[i]), f'{shares[i]:.1%}', colors[i]) for i in order]
        return 'Segments, and their share', rows, draw_map(picture, labels, classes, colors)
    return 'Classes', [Row(name, score, f'{score:.2f}') for name, score in read_classes(sample, classes)], picture
