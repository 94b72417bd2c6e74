"""The random numbers of a sample depend only on the seed and its position in the training run."""

import itertools
import pickle
import random
from types import MappingProxyType, SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import Runner
from torch.utils.data import Dataset, SequentialSampler

from mmstvit.datasets import SeededSampler, seeded
from mmstvit.engine.hooks import SeedHook

SIZE = 12


@DATASETS.register_module()
class RandomNumbers(Dataset):
    """Dataset of the index and a number from each generator that transforms use."""

    metainfo = MappingProxyType({'classes': ('a', 'b')})
    pipeline = 'first'

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        assert type(index) is int
        return index, random.random(), np.random.rand(), torch.rand(()).item()

    def __len__(self) -> int:
        return SIZE


def loader(sampler: str = 'DefaultSampler', workers: int = 0, seed: int | None = 0):
    return Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type='mmstvit.SeededSampler', sampler=dict(type=sampler, shuffle=True)),
            dataset=dict(type='mmstvit.SeededDataset', dataset=dict(type='RandomNumbers')),
        ),
        seed=seed,
    )


def samples(batches) -> list[tuple]:
    return [sample for batch in batches for sample in zip(*batch, strict=True)]


def epoch(data, number: int) -> list[tuple]:
    data.sampler.set_epoch(number)
    return samples(data)


def test_samples_are_independent_of_workers_and_earlier_epochs():
    plain = loader()
    epochs = [epoch(plain, number) for number in range(3)]
    persistent = loader(workers=2)
    assert [epoch(persistent, number) for number in range(2)] == epochs[:2]
    assert epoch(loader(workers=1), 2) == epochs[2]  # resumed after two epochs


def test_random_numbers_differ_between_samples_epochs_and_seeds():
    data = loader()
    numbers = [sample[1:] for number in range(3) for sample in epoch(data, number)]
    numbers += [sample[1:] for sample in epoch(loader(seed=1), 0)]
    for column in zip(*numbers, strict=True):
        assert len(set(column)) == 4 * SIZE


def test_infinite_sampler_resumes_after_skipped_samples():
    whole = samples(itertools.islice(iter(loader('InfiniteSampler')), 20))
    resumed = loader('InfiniteSampler', workers=2)
    resumed.sampler.skip(14)
    assert samples(itertools.islice(iter(resumed), 13)) == whole[14:]
    # MMEngine's loop would skip in a sampler with epochs.
    assert not hasattr(loader().sampler, 'skip')


@pytest.mark.parametrize('sampler', ['DefaultSampler', 'InfiniteSampler'])
def test_two_processes_share_the_samples_of_one(sampler, monkeypatch):
    whole = samples(itertools.islice(iter(loader(sampler)), SIZE // 2))
    shares = []
    for rank in range(2):
        world = mock.Mock(return_value=(rank, 2))
        monkeypatch.setattr(seeded, 'get_dist_info', world)
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', world)
        shares.append(samples(itertools.islice(iter(loader(sampler)), SIZE // 4)))
    assert [sample for pair in zip(*shares, strict=True) for sample in pair] == whole


@DATA_SAMPLERS.register_module()
class WithoutEpochs(SequentialSampler):
    def __init__(self, dataset: Dataset, seed: int) -> None:
        super().__init__(dataset)


def test_sampler_without_epochs():
    sampler = SeededSampler(dict(type='WithoutEpochs'), RandomNumbers(), seed=0)
    sampler.set_epoch(3)
    assert [index.key for index in sampler] == [(0, 3, position) for position in range(SIZE)]


def test_random_numbers_of_an_iteration_differ_from_those_of_a_sample():
    """Iteration 2 of rank 0, and position 0 of epoch 2."""
    SeedHook().before_train_iter(SimpleNamespace(seed=0, iter=2), batch_idx=0)
    iteration = random.random(), np.random.rand(), torch.rand(()).item()
    seeded.seed_everything(0, 2, 0)
    assert not {random.random(), np.random.rand(), torch.rand(()).item()} & set(iteration)


def test_attributes_of_the_inner_dataset():
    dataset = loader().dataset
    assert dataset.metainfo == RandomNumbers.metainfo and len(dataset) == SIZE
    dataset.pipeline = 'second'
    assert dataset.dataset.pipeline == 'second'
    assert not hasattr(dataset, 'absent') and not hasattr(dataset, '__getitems__')
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.pipeline == 'second' and len(copy) == SIZE
