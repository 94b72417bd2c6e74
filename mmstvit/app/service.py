"""Models, limits and predictions of the page, without Gradio."""

import contextlib
import functools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmengine.registry import DefaultScope

from mmstvit.apis.predict.inputs import Source
from mmstvit.apis.predict.predictor import Predictor, load_predictor
from mmstvit.checkpoint import to_mmstvit
from mmstvit.compat import registered_types_only
from mmstvit.datasets.images import UnreadableError
from mmstvit.drawing import resize
from mmstvit.errors import UserError
from mmstvit.fileio import IMAGE_SUFFIXES, image_size, safe_loading
from mmstvit.visualization import Attention, SuperTokens, attention_of, image_of, super_tokens

from .pictures import SIDE, ClassScore, draw_prediction

# The run of `make demo`, whose model is the first choice.
DEMO = 'mask-rcnn_stvit-nano_fpn_scenes'
MODELS, PREDICTIONS = 2, 16  # in memory
MAX_PIXELS = 16 << 20
MODEL_PIXELS = 2 << 20  # largest image after the test pipeline, which need not resize; a CPU takes minutes for more
Block = tuple[int, int]  # stage and block, from 0
Version = tuple[Path, int, int]  # checkpoint, time of its last change, size


@dataclass(frozen=True)
class Prediction:
    """Prediction of one model for an image, with its super tokens.

    Args:
        checkpoint: The checkpoint, below the allowed folder.
        file_size: Width and height of the file.
        size: Width and height after the test pipeline.
        sample: The image after the test pipeline.
        seen: The image as the model sees it, resized for display.
        drawn: Picture, heading and lines of the prediction.
        tokens: Super tokens of the blocks without global attention.
        seconds: Time that it took, with the loading of the model.
    """

    checkpoint: str
    file_size: tuple[int, int]
    size: tuple[int, int]
    sample: dict
    seen: np.ndarray
    drawn: tuple[np.ndarray, str, list[ClassScore]]
    tokens: dict[Block, SuperTokens]
    seconds: float


class Service:
    """Models and limits.

    One call computes at a time: super tokens are read by recorders in the model, the libraries have one default scope
    per process, and a second call would only share the same processor.

    Args:
        folder: Folder of the checkpoints; those outside are refused.
        device: ``'auto'``, or the name of a device of PyTorch.
        max_pixels: Number of pixels of the largest image.
    """

    def __init__(self, folder: Path, device: str = 'auto', max_pixels: int = MAX_PIXELS) -> None:
        self.folder, self.device, self.max_pixels = folder, device, max_pixels
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

    def check_image(self, path: Path) -> tuple[int, int]:
        """Return (width, height) of an image from its header; raises UserError if it is no image or too large."""
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise UserError(f'{path.name} is not an image file.', f'Use one of {", ".join(IMAGE_SUFFIXES)}.')
        size = image_size(path)
        if size is None:
            raise UserError(f'{path.name} is not an image, damaged, or of too many pixels.', 'Use a JPEG or PNG file.')
        if size[0] * size[1] > self.max_pixels:
            raise UserError(f'{path.name} has more than {self.max_pixels:,} pixels.', 'Use a smaller image.')
        return size

    def predict(
        self, checkpoint: str, image: Path, point: tuple[float, float] | None = None
    ) -> tuple[Prediction, dict[Block, Attention], tuple[int, int]]:
        """Predict an image, and read the attention of a point; what was read before is not computed again.

        Args:
            checkpoint: Path of a checkpoint in the folder.
            image: An image file.
            point: Position in the displayed image; the center by default.

        Returns:
            The prediction, the attention by block, and the pixel of the point as the model sees it.

        Raises:
            UserError: Checkpoint or image cannot be used.
        """
        path = self.find_checkpoint(checkpoint)
        status = path.stat()
        version = path, status.st_mtime_ns, status.st_size
        with self._lock:
            prediction = self._predict(version, image)
            (height, width), (w, h) = prediction.seen.shape[:2], prediction.size
            x, y = point or (width / 2, height / 2)
            pixel = min(max(int(x * w / width), 0), w - 1), min(max(int(y * h / height), 0), h - 1)
            return prediction, self._attend(version, image, pixel), pixel

    def _predict(self, version: Version, image: Path) -> Prediction:
        start, file_size = time.perf_counter(), self.check_image(image)
        with self._model(version) as predictor:
            try:
                file = next(predictor.read(Source(image, image.name, image.stem)))
                sample = predictor.prepare(file)
            except UnreadableError as error:
                raise UserError(f'{image.name}: {error}.', 'Use another image.') from error
            seen = image_of(sample)
            height, width = seen.shape[:2]
            if width * height > MODEL_PIXELS:
                raise UserError(
                    f'{image.name} has more than {MODEL_PIXELS:,} pixels after the test pipeline of this model.',
                    'Use a smaller image.',
                )
            drawn = draw_prediction(predictor, *predictor.predict([sample]), file.rgb)
            tokens = {(t.stage, t.block): t for t in super_tokens(predictor.model, sample)}
        name, seconds = version[0].relative_to(self._root).as_posix(), time.perf_counter() - start
        return Prediction(name, file_size, (width, height), sample, resize(seen, SIDE), drawn, tokens, seconds)

    def _attend(self, version: Version, image: Path, pixel: tuple[int, int]) -> dict[Block, Attention]:
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
