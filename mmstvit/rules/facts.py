"""Facts that the rules are about: a config, its datasets and heads, gathered once.

The datasets are built for their facts alone; a run builds its own.
"""

import contextlib
import copy
import dataclasses
import functools
import inspect
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmcv.transforms import LoadAnnotations
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.registry import DefaultScope
from torch.utils.data import Dataset

from mmstvit.datasets.build import build_dataset
from mmstvit.datasets.coco import Annotations, is_coco, read_annotations, summarize
from mmstvit.datasets.images import IMAGE_READER, Reader, find_loaders, find_readers
from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.errors import DataError
from mmstvit.fileio import is_local
from mmstvit.nodes import find_parts

from .coco_format import find_defects
from .findings import Finding
from .headers import Header, choose_spread, read_headers
from .kinds import FAULT

# Heads that classify the labels of the dataset; the region proposals of rpn_head have no class.
_HEADS = {'bbox_head', 'mask_head', 'decode_head', 'auxiliary_head', 'head', 'data_preprocessor'}
# The defect of an annotation file with which it can be read nevertheless.
SIZES = 'wrong sizes in annotations'


@dataclass
class DatasetFacts:
    """Facts about an inner dataset.

    Args:
        split: ``'train'``, ``'val'`` or ``'test'``.
        key: Dotted key in the user's config, such as ``'train_dataloader.dataset.dataset'``.
        cfg: Its config.
        dataset: The dataset, not yet serialized: ``data_list`` has its samples. A COCO dataset is not yet loaded
            (``lazy_init``): the rules read ``content``. None if it cannot be built, or is not MMEngine's.
        content: The annotation file of a COCO dataset as it is; None for others.
        error: The reason why the dataset cannot be built.
        defects: Findings about the format of the annotation file; after a fault other rules cannot read it.
    """

    split: str
    key: str
    cfg: Mapping
    dataset: BaseDataset | None = None
    content: object = None
    error: DataError | None = None
    defects: tuple[Finding, ...] = ()

    def finding(self, kind: str, message: str, remedy: str = '', where: str = '', **others: object) -> Finding:
        """Make a finding about this dataset; see :class:`Finding`."""
        return Finding(kind, message, remedy, where or self.key, split=self.split, **others)

    def some(self, kind: str, found: Sequence, total: int, message: str, where: str = '', **others: object) -> Finding:
        """Make a finding about some of many; see :meth:`Finding.of_many`."""
        return Finding.of_many(kind, found, total, message, where=where or self.key, split=self.split, **others)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """``metainfo.classes``; None if the dataset has none, or a string in place of a list."""
        classes = getattr(self.dataset, 'metainfo', {}).get('classes')
        return None if classes is None or isinstance(classes, str) else tuple(classes)

    @property
    def with_mask(self) -> bool:
        """True if the pipeline loads the masks of objects."""
        return any(getattr(loader, 'with_mask', False) for loader in self.loaders)

    @functools.cached_property
    def loaders(self) -> list:
        """The transforms of the pipeline that load images and annotations."""
        return list(find_loaders(getattr(self.dataset, 'pipeline', ())))

    @functools.cached_property
    def image_reader(self) -> Reader:
        """The way the pipeline reads images."""
        readers = find_readers(getattr(self.dataset, 'pipeline', ()))
        return next((reader for reader in readers if reader.key == IMAGE_READER.key), IMAGE_READER)

    @functools.cached_property
    def headers(self) -> list[Header]:
        """Headers of a sample of the images, with their samples before the pipeline (of COCO without objects)."""
        if self.annotations is None:
            return read_headers(choose_spread([] if self.content is not None else self.infos))
        images = choose_spread(list(self.annotations.images.values()))
        raw = [dict(raw_img_info={**image, 'img_id': image['id']}, raw_ann_info=[]) for image in images]
        return read_headers([self.dataset.parse_data_info(info) for info in raw])

    @property
    def infos(self) -> Sequence[Mapping]:
        """Samples before the pipeline; empty for COCO datasets, and if they are unknown."""
        return [] if self.content is not None else getattr(self.dataset, 'data_list', [])

    @functools.cached_property
    def unloaded(self) -> BaseDataset | None:
        """The dataset, without samples if they cannot be loaded; None if it cannot be built at all."""
        if self.dataset is None and self.error is not None:
            with contextlib.suppress(DataError):
                return build_dataset({**copy.deepcopy(self.cfg), 'lazy_init': True}, self.key)
        return self.dataset

    def is_read_by(self, module: str) -> bool:
        """Return True if the samples are listed by a module of the libraries, such as ``mmdet.datasets.xml_style``."""
        return getattr(getattr(find_class(self.cfg), 'load_data_list', None), '__module__', '') == module

    @functools.cached_property
    def files(self) -> list[str]:
        """Paths of the images; empty if they are unknown."""
        if self.annotations is None:
            return self._paths('img_path')
        folder = self.dataset.data_prefix['img']
        return [os.path.join(folder, image['file_name']) for image in self.annotations.images.values()]

    @functools.cached_property
    def maps(self) -> list[str]:
        """Paths of the segmentation maps; empty if there are none."""
        return self._paths('seg_map_path')

    def _paths(self, key: str) -> list[str]:
        return [info[key] for info in self.infos if isinstance(info.get(key), str)]

    @property
    def annotated(self) -> bool:
        """True if the run needs annotations: in training and validation, with a pipeline that loads them."""
        return self.split != 'test' and any(isinstance(loader, LoadAnnotations) for loader in self.loaders)

    @functools.cached_property
    def annotations(self) -> Annotations | None:
        """Images and objects of a COCO file whose format is sound; None for other datasets and files."""
        if self.content is None or any(d.severity == FAULT and d.kind != SIZES for d in self.defects):
            return None
        return summarize(self.content, self.dataset, checked=True)


@dataclass
class Facts:
    """Facts about a config.

    Args:
        cfg: The config.
        datasets: The inner datasets of the splits that are checked; data that occur twice once.
        heads: ``num_classes`` of the model's heads with their dotted keys.
        keys: Keys of all inner datasets by split.
        same: Key of a dataset with the same data as an earlier one → key of that one.
        num_workers: Number of processes for the rules that decode; 0 is this process.
        decodes: True if a rule decodes all files, so that others need not decode a sample of them.
    """

    cfg: Config
    datasets: list[DatasetFacts] = field(default_factory=list)
    heads: list[tuple[str, int]] = field(default_factory=list)
    keys: dict[str, list[str]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    num_workers: int = 0
    decodes: bool = False

    def of_split(self, split: str) -> list[DatasetFacts]:
        """Return the datasets of a split."""
        return [data for data in self.datasets if data.split == split]

    def read_by(self, split: str) -> list[DatasetFacts]:
        """Return the datasets that a split reads, also those that an earlier split has."""
        known = {data.key: data for data in self.datasets}
        return [known[self.same.get(key, key)] for key in self.keys.get(split, ())]

    def evaluators(self, split: str) -> Iterator[tuple[str, Mapping]]:
        """Yield dotted keys and configs of the evaluators of a split; training has none."""
        key = f'{split}_evaluator'
        return find_parts(None if split == 'train' else self.cfg.get(key), key)

    def of_coco(self) -> Iterator[tuple[DatasetFacts, Annotations]]:
        """Yield the COCO datasets whose files have a sound format, with their annotations."""
        for data in self.datasets:
            if data.annotations is not None:
                yield data, data.annotations


def gather(cfg: Config, splits: Sequence[str], num_workers: int = 0) -> Facts:
    """Gather the facts about a config.

    Args:
        cfg: The user's config, without the dataset wrappers that train.py adds.
        splits: Of ``'train'``, ``'val'`` and ``'test'``.
        num_workers: See :class:`Facts`.
    """
    facts = Facts(cfg, heads=[*find_num_classes(cfg.get('model'))], num_workers=num_workers)
    seen: dict[str, str] = {}
    with in_scope(cfg):
        for split in splits:
            node = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
            inner = list(inner_datasets(node, f'{split}_dataloader.dataset'))
            facts.keys[split] = [key for key, _ in inner]
            for key, node in inner:
                first = seen.setdefault(_identity(node), key)
                if first == key:
                    facts.datasets.append(_gather_dataset(split, key, node))
                else:
                    facts.same[key] = first
    return facts


@contextlib.contextmanager
def in_scope(cfg: Config) -> Iterator[None]:
    """Build datasets in the scope of a config, without the lines that pycocotools prints."""
    MMLogger.get_current_instance()  # one that is made below would write into the redirected output for good
    with DefaultScope.overwrite_default_scope(cfg.default_scope), contextlib.redirect_stdout(io.StringIO()):
        yield


def _gather_dataset(split: str, key: str, cfg: Mapping) -> DatasetFacts:
    data = DatasetFacts(split, key, cfg)
    try:
        cls = find_class(cfg)
        if isinstance(cls, type) and not issubclass(cls, BaseDataset):
            return data
        data.dataset = _build_for_facts(cfg, cls, key)
        if is_coco(cls):
            data.content = read_annotations(data.dataset)
            local = is_local(data.dataset.ann_file)
            folder = data.dataset.data_prefix.get('img') if local else None
            found = find_defects(data.content, folder, evaluated=split != 'train', turns=data.image_reader.turns)
            where = dict(where=data.dataset.ann_file, split=split)
            data.defects = tuple(dataclasses.replace(finding, **where) for finding in found)
    except DataError as error:
        data.dataset, data.error = None, error
    return data


def find_class(cfg: Mapping) -> type | None:
    """Look up the class of a dataset's config, in the default scope or its own."""
    if not isinstance(cfg['type'], str):
        return cfg['type']
    with MMENGINE_DATASETS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
        return registry.get(cfg['type'])


def _build_for_facts(cfg: Mapping, cls: type | None, key: str) -> Dataset:
    """Build an inner dataset whose samples are not serialized; those of a COCO dataset are not loaded.

    Raises:
        DataError: The dataset cannot be built or has no samples.
    """
    options = {}
    if isinstance(cls, type) and issubclass(cls, BaseDataset):
        parameters = inspect.signature(cls).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        wanted = dict(serialize_data=False, lazy_init=True) if is_coco(cls) else dict(serialize_data=False)
        options = {name: value for name, value in wanted.items() if anything or name in parameters}
    return build_dataset({**copy.deepcopy(cfg), **options}, key)  # transforms may write into their configs


def _identity(cfg: Mapping) -> str:
    """Write a dataset's config without the options that do not change its data."""
    ignored = ('pipeline', 'test_mode', 'lazy_init', 'serialize_data')
    return repr(sorted((name, repr(value)) for name, value in cfg.items() if name not in ignored))


def find_num_classes(node: object, key: str = 'model', in_head: bool = False) -> Iterator[tuple[str, int]]:
    """Find ``num_classes`` of a model config's heads, by dotted key."""
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from find_num_classes(part, f'{key}.{i}', in_head)
    elif isinstance(node, Mapping):
        if in_head and isinstance(node.get('num_classes'), int):
            yield f'{key}.num_classes', node['num_classes']
        if node.get('num_stuff_classes') == 0 and 'num_things_classes' in node:  # a mask transformer for instances
            yield f'{key}.num_things_classes', node['num_things_classes']
        for name, part in node.items():
            if name != 'rpn_head':
                yield from find_num_classes(part, f'{key}.{name}', in_head or name in _HEADS)
