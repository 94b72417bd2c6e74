"""Datasets around datasets."""

from collections.abc import Iterator, Mapping, Sequence

from mmengine.dataset import BaseDataset
from torch.utils.data import Dataset


class TransparentDataset(Dataset):
    """A dataset around another, seen through its attributes: hooks read the classes, and some exchange the pipeline.

    Args:
        dataset: The other dataset.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> object:
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> object:
        if name == 'dataset' or name.startswith('__'):  # while being unpickled; special methods
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name == 'dataset':
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)


def leaves(dataset: Dataset) -> Iterator[BaseDataset]:
    """The datasets of MMEngine's kind inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``."""
    if isinstance(dataset, BaseDataset):
        yield dataset
    elif hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from leaves(part)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(dataset.dataset)


def leaf_configs(key: str, cfg: Mapping | Sequence | None) -> Iterator[tuple[str, Mapping]]:
    """The configs of what :func:`leaves` yields, or of the evaluators of a list, each with its dotted key."""
    if isinstance(cfg, (list, tuple)):
        for i, part in enumerate(cfg):
            yield from leaf_configs(f'{key}.{i}', part)
    elif cfg is not None:
        inner = next((name for name in ('datasets', 'dataset') if cfg.get(name)), None)
        if inner is None:
            yield key, cfg
        else:
            yield from leaf_configs(f'{key}.{inner}', cfg[inner])
