"""Numbers of a new config: sizes of images and batches, length and schedule of the training run."""

import math
import os
from dataclasses import dataclass
from statistics import median

from .models import Model
from .options import Data, Options


@dataclass(frozen=True)
class Plan:
    """The numbers that the data, the model and the options decide together.

    Args:
        scale: (long side, short side) into which an image is fitted; for classes the side of a crop, twice.
        median_size: Median of the long and short sides of the images.
        same_size: All images have one size.
        batch_size: Images per iteration.
        num_workers: Processes that load data.
        epochs: Passes over the training images.
        epoch_length: Iterations of an epoch.
        warmup: Iterations of the warm-up.
        interval: Epochs from one validation to the next.
        log_interval: Iterations from one line of the log to the next.
        max_per_img: Most objects that a detector reports in an image.
    """

    scale: tuple[int, int]
    median_size: tuple[int, int]
    same_size: bool
    batch_size: int
    num_workers: int
    epochs: int
    epoch_length: int
    warmup: int
    interval: int
    log_interval: int
    max_per_img: int

    @property
    def iterations(self) -> int:
        """Iterations of the training run."""
        return self.epochs * self.epoch_length


def make_plan(data: Data, model: Model, options: Options) -> Plan:
    """Choose the numbers of a config."""
    recipe = model.recipe
    count = data.counts['train']
    # At least four iterations an epoch, and two images for BatchNorm.
    batch = options.batch_size or max(min(2, count), min(recipe.batch, count // 4))
    length = math.ceil(count / batch)
    epochs = options.epochs or min(300, max(recipe.min_epochs, round(recipe.iterations / length)))
    sizes = data.sizes or [(recipe.side, recipe.side)]
    long, short = (round(median(side(size) for size in sizes)) for side in (max, min))
    most = -(-data.most_objects * 3 // 20) * 10  # half as many again, in tens
    return Plan(
        scale=_square(short, recipe.side) if data.task == 'classes' else _fit(long, short, recipe.side),
        median_size=(long, short),
        same_size=len(set(sizes)) == 1,
        batch_size=batch,
        num_workers=max(1, min(4, (os.cpu_count() or 1) // 2)),
        epochs=epochs,
        epoch_length=length,
        warmup=max(1, min(100 if model.size == 'nano' else 500, epochs * length // 10)),
        interval=max(1, epochs // 10),
        log_interval=max(1, min(50, length // 2)),
        max_per_img=max(20 if model.size == 'nano' else 100, most),
    )


def _fit(long: int, short: int, side: int) -> tuple[int, int]:
    """Return the median size in multiples of 8; the short side is at most ``side``, the long one 5/3 of it."""
    factor = min(1, side / short, side * 5 / 3 / long)
    return tuple(max(32, round(length * factor / 8) * 8) for length in (long, short))


def _square(short: int, side: int) -> tuple[int, int]:
    """Return the side of a crop: a multiple of 32, as large as the images up to ``side``."""
    length = max(64, min(side, round(short / 32) * 32))
    return length, length
