"""Build the datasets of a config once: first for the rules, then complete, for the runner."""

import functools
import inspect
from collections.abc import Iterator, Mapping

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset

from mmstvit.compat import serialize_data
from mmstvit.datasets.build import build_dataset, check_not_empty
from mmstvit.datasets.coco import is_coco


def find_class(cfg: Mapping) -> type | None:
    """Look up the class of a dataset's config, in the default scope or its own."""
    if not isinstance(cfg['type'], str):
        return cfg['type']
    with MMENGINE_DATASETS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
        return registry.get(cfg['type'])


def build_inner(cfg: Mapping, key: str) -> Dataset:
    """Build an inner dataset for the rules: its samples not serialized, and those of a COCO dataset not yet loaded.

    Raises:
        DataError: The dataset cannot be built or has no samples.
    """
    cls = find_class(cfg)
    options = dict(serialize_data=False, lazy_init=True) if is_coco(cls) else dict(serialize_data=False)
    return build_dataset({**cfg, **{name: value for name, value in options.items() if _accepts(cls, name)}}, key)


def _accepts(cls: object, name: str) -> bool:
    """Return True if a class of MMEngine's datasets has an option."""
    if not isinstance(cls, type) or not issubclass(cls, BaseDataset):
        return False
    parameters = inspect.signature(cls).parameters
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def complete(dataset: BaseDataset, content: object, cfg: Mapping, key: str) -> None:
    """Load the samples of a dataset that :func:`build_inner` built, and serialize them as the config says.

    Args:
        dataset: The dataset.
        content: The annotation file of a COCO dataset, which is not parsed again.
        cfg: Config of the dataset.
        key: Its dotted key.

    Raises:
        DataError: It has no samples.
    """
    if content is not None:
        dataset.COCOAPI = functools.partial(_index, type(dataset).COCOAPI, content)
    try:
        build_dataset(dataset, key)
        check_not_empty(dataset, key)
    finally:
        vars(dataset).pop('COCOAPI', None)
    if cfg.get('serialize_data', True) and not dataset.serialize_data:
        serialize_data(dataset)


def _index(api: type, content: dict, _file: str) -> object:
    """Index an annotation file that is already parsed; stands in for ``COCO(file)``."""
    coco = api()
    coco.dataset = content
    coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco


def assemble(node: object, leaves: Iterator[Dataset | None]) -> object:
    """Replace the configs of inner datasets by the datasets, in the order of ``inner_datasets``.

    Args:
        node: Config of a dataset, with its wrappers.
        leaves: The inner datasets; None keeps the config.

    Returns:
        The dataset, or a config of wrappers that MMEngine builds around it.
    """
    if isinstance(node, (list, tuple)):
        return [assemble(part, leaves) for part in node]
    for name in ('dataset', 'datasets'):
        if node.get(name) is not None:
            return {**node, name: assemble(node[name], leaves)}
    leaf = next(leaves)
    return node if leaf is None else leaf
