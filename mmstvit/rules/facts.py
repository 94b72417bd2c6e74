"""Facts that the rules are about: a config, its datasets and heads, gathered once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmengine.config import Config
from mmengine.dataset import BaseDataset

from mmstvit.errors import DataError

# Heads that classify the labels of the dataset; the region proposals of rpn_head have no class.
_HEADS = {'bbox_head', 'mask_head', 'decode_head', 'auxiliary_head', 'head', 'data_preprocessor'}


@dataclass
class DatasetFacts:
    """Facts about an inner dataset.

    Args:
        split: ``'train'``, ``'val'`` or ``'test'``.
        key: Dotted key in the user's config, such as ``'train_dataloader.dataset.dataset'``.
        cfg: Its config.
        dataset: The dataset; None if it cannot be built. A COCO dataset is not yet loaded (``lazy_init``): the rules
            read ``content``.
        content: The annotation file of a COCO dataset, as it is; None for others, and if it is not JSON.
        error: The reason why the dataset cannot be built.
    """

    split: str
    key: str
    cfg: Mapping
    dataset: BaseDataset | None = None
    content: dict | None = None
    error: DataError | None = None


@dataclass
class Facts:
    """Facts about a config.

    Args:
        cfg: The config.
        datasets: The inner datasets of the splits that are checked, each once.
        heads: ``num_classes`` of the model's heads with their dotted keys.
    """

    cfg: Config
    datasets: list[DatasetFacts] = field(default_factory=list)
    heads: list[tuple[str, int]] = field(default_factory=list)

    def of_split(self, split: str) -> list[DatasetFacts]:
        """Return the datasets of a split."""
        return [facts for facts in self.datasets if facts.split == split]


def find_num_classes(node: object, key: str = 'model', in_head: bool = False) -> Iterator[tuple[str, int]]:
    """Find ``num_classes`` of a model config's heads, by dotted key."""
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from find_num_classes(part, f'{key}.{i}', in_head)
    elif isinstance(node, Mapping):
        if in_head and isinstance(node.get('num_classes'), int):
            yield f'{key}.num_classes', node['num_classes']
        for name, part in node.items():
            if name != 'rpn_head':
                yield from find_num_classes(part, f'{key}.{name}', in_head or name in _HEADS)
