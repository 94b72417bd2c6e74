"""Dataset wrappers and the inner datasets in them."""

from collections.abc import Iterator, Mapping

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS
from torch.utils.data import Dataset


class DatasetWrapper(Dataset):
    """A dataset wrapper that passes attributes on: hooks read the inner dataset's classes and replace its pipeline.

    Args:
        dataset: The inner dataset, or its config.
    """

    def __init__(self, dataset: dict | Dataset) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, dict) else dataset

    def __getitem__(self, index: int) -> object:
        return self.dataset[index]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> object:
        if name == 'dataset' or name.startswith('__'):  # while it is unpickled; special methods
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: object) -> None:
        if name == 'dataset':
            super().__setattr__(name, value)
        else:
            setattr(self.dataset, name, value)


def inner_datasets(node: object, key: str = 'dataset') -> Iterator[tuple[str, object]]:
    """Find the datasets inside wrappers such as ``RepeatDataset`` and ``ConcatDataset``.

    Args:
        node: A dataset, or the config of one; a list of evaluator configs is searched likewise.
        key: Dotted key of ``node`` in the whole config.

    Yields:
        The dotted key of each inner dataset, and the dataset or its config.
    """
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from inner_datasets(part, f'{key}.{i}')
    elif node is not None:
        for name in () if isinstance(node, BaseDataset) else ('dataset', 'datasets'):
            part = node.get(name) if isinstance(node, Mapping) else getattr(node, name, None)
            if part is not None:
                yield from inner_datasets(part, f'{key}.{name}')
                return
        yield key, node
