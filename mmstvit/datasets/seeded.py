"""Training samples whose augmentation depends only on the seed and their position in the training run.

MMEngine seeds each worker of a dataloader once: the augmentation of a sample depends on all samples that its worker
loaded before, which a resumed run does not load again. Here the sampler yields indices with a key, made of the run's
seed, the epoch and the position among the samples of all processes, and the dataset seeds the random number generators
from it. A resumed run, a run with another number of workers, and one process instead of two with the same global batch
all load the same samples.
"""

import random
from collections.abc import Callable, Iterator

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from torch.utils.data import Dataset, Sampler

from mmstvit.registry import DATA_SAMPLERS, DATASETS

from .wrappers import DatasetWrapper


def seed_everything(*key: int) -> None:
    """Seed the random number generators of Python, NumPy and PyTorch (all devices) from non-negative integers."""
    first, second, third = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.manual_seed(third)


def record_random() -> Callable[[], None]:
    """Return a function that resets the random number generators to their present state."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda)

    return restore


class SeededIndex(int):
    """Index of a sample, with the integers that seed its random numbers in ``key``."""

    key: tuple[int, ...]

    def __new__(cls, index: int, key: tuple[int, ...]) -> 'SeededIndex':
        """Create an index with a key."""
        self = super().__new__(cls, index)
        self.key = key
        return self

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:
        return int(self), self.key


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Sampler that wraps another one and yields :class:`SeededIndex`.

    Args:
        sampler: Config of the wrapped sampler, which yields integers.
        dataset: The dataset.
        seed: Seed of the run; None draws one for all processes.
    """

    def __init__(self, sampler: dict, dataset: Dataset, seed: int | None = None) -> None:
        self.seed = sync_random_seed() if seed is None else seed
        self.dataset = dataset
        self.sampler = MMENGINE_DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=self.seed))
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self._skipped = 0
        # MMEngine's loop skips if a sampler has this method; only infinite samplers can.
        if hasattr(self.sampler, 'skip'):
            self.skip = self._skip

    def __iter__(self) -> Iterator[SeededIndex]:
        for position, index in enumerate(self.sampler, start=self._skipped):
            yield SeededIndex(index, (self.seed, self.epoch, position * self.world_size + self.rank))

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, also of the wrapped sampler if it has epochs."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _skip(self, num_samples: int) -> None:
        """Begin after ``num_samples`` samples of this process."""
        self.sampler.skip(num_samples)
        self._skipped = num_samples


@DATASETS.register_module()
class SeededDataset(DatasetWrapper):
    """Dataset wrapper that seeds the random numbers of each sample from the key of its index.

    Args:
        dataset: Config of the inner dataset, or the dataset.
    """

    def __getitem__(self, index: int) -> object:
        if isinstance(index, SeededIndex):
            seed_everything(*index.key)
        return self.dataset[int(index)]
