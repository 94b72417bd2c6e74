"""Training samples whose augmentation depends on nothing but the seed and their place in the training.

MMEngine seeds each worker of a dataloader once. What a sample becomes then depends on every sample that its worker
loaded before, which a resumed run does not repeat. Here the sampler hands out indices that carry a seed of their own,
made of the training's seed, the epoch and the position among the samples of all processes, and the dataset starts its
random numbers from it. A resumed run, another number of workers, and one process in place of two on the same global
batch all see the same samples.
"""

import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset, Sampler

from mmstvit.registry import DATA_SAMPLERS, DATASETS

from .wrapper import TransparentDataset


def seed_everything(*key: int) -> None:
    """Start the random numbers of Python, NumPy and PyTorch (all devices) from a few non-negative integers."""
    first, second, third = np.random.SeedSequence(key).generate_state(3).tolist()
    random.seed(first)
    np.random.seed(second)
    torch.manual_seed(third)


class SeededIndex(int):
    """The index of a sample, with the key that its random numbers start from in ``key``."""

    key: tuple[int, ...]

    def __new__(cls, index: int, key: tuple[int, ...]) -> 'SeededIndex':
        self = super().__new__(cls, index)
        self.key = key
        return self

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:
        return int(self), self.key


@DATA_SAMPLERS.register_module()
class SeededSampler(Sampler):
    """Another sampler whose indices are :class:`SeededIndex`.

    Args:
        sampler: Config of the other sampler, whose indices are integers.
        dataset: The dataset.
        seed: Seed of the training; None draws one for all processes.
    """

    def __init__(self, sampler: dict, dataset: Dataset, seed: int | None = None) -> None:
        self.seed = sync_random_seed() if seed is None else seed
        self.dataset = dataset
        self.sampler = MMENGINE_DATA_SAMPLERS.build(sampler, default_args=dict(dataset=dataset, seed=self.seed))
        self.rank, self.world_size = get_dist_info()
        self.epoch = 0
        self._skipped = 0
        # MMEngine's loop looks whether a sampler can skip; only an endless one can.
        if hasattr(self.sampler, 'skip'):
            self.skip = self._skip

    def __iter__(self) -> Iterator[SeededIndex]:
        for position, index in enumerate(self.sampler, start=self._skipped):
            yield SeededIndex(index, (self.seed, self.epoch, position * self.world_size + self.rank))

    def __len__(self) -> int:
        return len(self.sampler)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which not every sampler has."""
        self.epoch = epoch
        if hasattr(self.sampler, 'set_epoch'):
            self.sampler.set_epoch(epoch)

    def _skip(self, num_samples: int) -> None:
        """Begin after as many samples of this process."""
        self.sampler.skip(num_samples)
        self._skipped = num_samples


@DATASETS.register_module()
class SeededDataset(TransparentDataset):
    """Another dataset whose samples start from the key of their index.

    Args:
        dataset: Config of the other dataset.
    """

    def __init__(self, dataset: dict) -> None:
        super().__init__(MMENGINE_DATASETS.build(dataset))

    def __getitem__(self, index: int) -> object:
        if isinstance(index, SeededIndex):
            seed_everything(*index.key)
        return self.dataset[int(index)]
