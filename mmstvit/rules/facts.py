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

from mmstvit.datasets.coco import Annotations, is_coco, read_annotations, summarize
from mmstvit.datasets.images import IMAGE_READER, MAP_READER, Reader, find_loaders, find_readers
from mmstvit.datasets.wrappers import inner_datasets
from mmstvit.errors import DataError
from mmstvit.fileio import is_local
from mmstvit.nodes import find_parts

from .coco_format import find_defects
from .decoding import Decoded, decode_files
from .findings import Finding
from .headers import SAMPLE, Header, choose_unusual, read_headers, thin_out
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
        dataset: The dataset, not serialized: ``data_list`` has its samples. A COCO dataset is not loaded: the rules
            read ``content``. None if it cannot be built, or is not MMEngine's.
        content: The annotation file of a COCO dataset as it is; None for others.
        error: The reason why the dataset cannot be built, or has no samples.
        defects: Findings about the format of the annotation file; after a fault other rules cannot read it.
        decoded: Images and maps that were decoded, by path; empty if the rules do not read every file.
        remarks: What the log says about the dataset besides its size.
    """

    split: str
    key: str
    cfg: Mapping
    dataset: BaseDataset | None = None
    content: object = None
    error: DataError | None = None
    defects: tuple[Finding, ...] = ()
    decoded: dict[str, Decoded] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    def finding(self, kind: str, values: Sequence[str] = (), where: str = '', **others: object) -> Finding:
        """Make a finding about this dataset; see :class:`Finding`."""
        return Finding(kind, where or self.key, values, split=self.split, **others)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names of the classes; None if there are none, or a string in place of a list."""
        classes = getattr(self.dataset, 'metainfo', {}).get('classes')
        return tuple(classes) if isinstance(classes, (list, tuple)) else None

    @property
    def with_mask(self) -> bool:
        """True if the pipeline loads the masks of objects."""
        return any(getattr(loader, 'with_mask', False) for loader in self.loaders)

    @functools.cached_property
    def pipeline(self) -> object:
        """The pipeline; empty if the dataset has none."""
        return getattr(self.dataset, 'pipeline', ())

    @functools.cached_property
    def loaders(self) -> list:
        """The transforms of the pipeline that load images and annotations."""
        return list(find_loaders(self.pipeline))

    @functools.cached_property
    def readers(self) -> dict[str, Reader]:
        """The ways the pipeline reads files, by key; of several the first."""
        return {reader.key: reader for reader in reversed(find_readers(self.pipeline))}

    @property
    def image_reader(self) -> Reader:
        """The way the pipeline reads images."""
        return self.readers.get(IMAGE_READER.key, IMAGE_READER)

    @functools.cached_property
    def headers(self) -> list[Header]:
        """Headers of a sample of the images, among them the narrowest and the largest one if their sizes are known."""
        if self.annotations is None:
            images, get_info = self.infos, dict
            sizes = [self.decoded[path].shape[::-1] for path in self.files] if self.decoded else []
        else:
            images, get_info = [*self.annotations.images.values()], self._parse
            sizes = [(image['width'], image['height']) for image in images]
        unusual = choose_unusual(sizes) if len(sizes) == len(images) else []
        chosen = dict.fromkeys([*thin_out(range(len(images)), SAMPLE), *unusual])
        return list(read_headers(get_info(images[position]) for position in chosen))

    def _parse(self, image: Mapping) -> Mapping:
        """Return the sample of an entry of a COCO file, without its objects."""
        return self.dataset.parse_data_info(dict(raw_img_info={**image, 'img_id': image['id']}, raw_ann_info=[]))

    @property
    def infos(self) -> Sequence[Mapping]:
        """Samples before the pipeline; empty for COCO datasets, and if they are unknown."""
        return [] if self.content is not None else getattr(self.dataset, 'data_list', [])

    def is_read_by(self, module: str) -> bool:
        """Return True if the samples are listed by a module of the libraries, such as ``mmdet.datasets.xml_style``."""
        return getattr(getattr(find_class(self.cfg), 'load_data_list', None), '__module__', '') == module

    @functools.cached_property
    def files(self) -> list[str]:
        """Paths of the images; empty if they are unknown."""
        if self.content is None:
            return self._paths('img_path')
        images = self.content.get('images') if isinstance(self.content, Mapping) else None
        images = images if self.annotations is None else self.annotations.images.values()
        names = [image.get('file_name') for image in images or () if isinstance(image, Mapping)]
        return [os.path.join(self.dataset.data_prefix['img'], name) for name in names if isinstance(name, str)]

    @functools.cached_property
    def maps(self) -> list[str]:
        """Paths of the segmentation maps; empty if there are none."""
        return self._paths('seg_map_path')

    def _paths(self, key: str) -> list[str]:
        return [info[key] for info in self.infos if isinstance(info.get(key), str)]

    @property
    def map_reader(self) -> Reader | None:
        """The way the pipeline reads segmentation maps; None if it does not."""
        return self.readers.get(MAP_READER.key)

    @property
    def annotated(self) -> bool:
        """True if the run needs annotations: in training and validation, with a pipeline that loads them."""
        return self.split != 'test' and any(isinstance(loader, LoadAnnotations) for loader in self.loaders)

    @functools.cached_property
    def annotations(self) -> Annotations | None:
        """Images and objects of a COCO file whose format is sound; None for other datasets and files."""
        if self.content is None or any(d.severity == FAULT and d.kind != SIZES for d in self.defects):
            return None
        return summarize(self.content, self.dataset)


@dataclass
class Facts:
    """Facts about a config.

    Args:
        cfg: The config.
        datasets: The inner datasets of the splits that are checked; data that occur twice once.
        heads: ``num_classes`` of the model's heads with their dotted keys.
        keys: Keys of all inner datasets by split.
        same: Key of a dataset with the same data as an earlier one → key of that one.
        complete: True if every file was read and decoded.
    """

    cfg: Config
    datasets: list[DatasetFacts] = field(default_factory=list)
    heads: list[tuple[str, int]] = field(default_factory=list)
    keys: dict[str, list[str]] = field(default_factory=dict)
    same: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    @property
    def scope(self) -> str | None:
        """The default scope of the config: the library."""
        return self.cfg.get('default_scope')

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

    def wants_masks(self, data: DatasetFacts) -> bool:
        """Return True if the pipeline of a dataset loads masks, or an evaluator of its split compares them."""
        segm = any('segm' in (node.get('metric') or ()) for _, node in self.evaluators(data.split))
        return data.with_mask or segm


def gather(cfg: Config, splits: Sequence[str], complete: bool = False, num_workers: int = 0) -> Facts:
    """Gather the facts about a config.

    Args:
        cfg: The user's config, without the dataset wrappers that train.py adds.
        splits: Of ``'train'``, ``'val'`` and ``'test'``.
        complete: Read and decode every file.
        num_workers: Number of processes that decode; 0 is this process.
    """
    facts = Facts(cfg, heads=[*find_num_classes(cfg.get('model'))], complete=complete)
    seen: dict[str, str] = {}
    for split in splits:
        node = (cfg.get(f'{split}_dataloader') or {}).get('dataset')
        inner = list(inner_datasets(node, f'{split}_dataloader.dataset'))
        facts.keys[split] = [key for key, _ in inner]
        for key, node in inner:
            first = seen.setdefault(_identity(node), key)
            if first == key:
                facts.datasets.append(_gather_dataset(split, key, node, complete))
            else:
                facts.same[key] = first
    if complete:
        files = [[*_readers(data)] for data in facts.datasets]
        for data, decoded in zip(facts.datasets, decode_files(files, num_workers), strict=True):
            data.decoded = decoded
    return facts


def _readers(data: DatasetFacts) -> Iterator[tuple[str, Reader]]:
    """Yield the files of a dataset, and how its pipeline reads them."""
    yield from ((path, data.image_reader) for path in data.files)
    if data.map_reader:
        yield from ((path, data.map_reader) for path in data.maps)


@contextlib.contextmanager
def in_scope(cfg: Config) -> Iterator[None]:
    """Build datasets in the scope of a config, without the lines that pycocotools prints."""
    MMLogger.get_current_instance()  # one that is made below would write into the redirected output for good
    with DefaultScope.overwrite_default_scope(cfg.default_scope), contextlib.redirect_stdout(io.StringIO()):
        yield


def _gather_dataset(split: str, key: str, cfg: Mapping, complete: bool) -> DatasetFacts:
    data, cls = DatasetFacts(split, key, cfg), find_class(cfg)
    if isinstance(cls, type) and not issubclass(cls, BaseDataset):
        return data
    try:
        data.dataset = dataset = build_dataset(cfg, key)
        if is_coco(cls):
            data.content = read_annotations(dataset)
            folder = dataset.data_prefix.get('img') if is_local(dataset.ann_file) else None
            options = dict(evaluated=split != 'train', turns=data.image_reader.turns, complete=complete)
            found = find_defects(data.content, folder, **options)
            data.defects = tuple(dataclasses.replace(f, where=dataset.ann_file, split=split) for f in found)
        elif isinstance(dataset, BaseDataset):
            with _explained(key):
                dataset.full_init()
            if not len(dataset):
                raise _empty(dataset, key)
    except DataError as error:
        data.error = error
    return data


def find_class(cfg: Mapping) -> type | None:
    """Look up the class of a dataset's config, in the default scope or its own."""
    if not isinstance(cfg['type'], str):
        return cfg['type']
    with MMENGINE_DATASETS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
        return registry.get(cfg['type'])


def build_dataset(cfg: Mapping, key: str) -> Dataset:
    """Build an inner dataset; its samples are not loaded yet, and will not be serialized.

    Raises:
        DataError: The dataset cannot be built.
    """
    cls = find_class(cfg)
    parameters = inspect.signature(cls).parameters if isinstance(cls, type) else {}
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    options = {name: name == 'lazy_init' for name in ('serialize_data', 'lazy_init') if anything or name in parameters}
    with _explained(key):
        return MMENGINE_DATASETS.build({**copy.deepcopy(cfg), **options})  # transforms may write into their configs


@contextlib.contextmanager
def _explained(key: str) -> Iterator[None]:
    """Make a DataError of whatever a dataset raises inside."""
    try:
        yield
    except Exception as error:  # a dataset of one's own raises anything
        reason = ' '.join(str(error).split()).rstrip('.')
        problem = f'{key} cannot be built: {type(error).__name__}: {reason}.'
        raise DataError(problem, 'Correct the config of the dataset, or its files.') from error


def _empty(dataset: BaseDataset, key: str) -> DataError:
    """Explain why a dataset has no samples."""
    if dataset.ann_file:
        return DataError(
            f'{key} has no samples: {dataset.ann_file} lists no files.', 'Set ann_file to a file with samples.'
        )
    folder = dataset.data_prefix.get('img_path') or dataset.data_prefix.get('img')
    suffix = f' with the suffix {dataset.img_suffix}' if hasattr(dataset, 'img_suffix') else ''
    problem = f'{key} has no samples: the folder {folder} has no images{suffix}.'
    return DataError(problem, 'Set data_root and data_prefix to the images.')


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
