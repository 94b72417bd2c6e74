"""Collect the samples of a dataset, including those that the dataset's own filtering drops."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS

from mmstvit.errors import DataError

from ..coco import is_coco
from ..images import IMAGE_READER, MAP_READER, Reader, find_loaders, find_readers
from ..usable import build_dataset, check_usable, ignored_labels
from .coco import collect_coco
from .findings import Finding
from .sample import Sample

_FOLDERS = ('img', 'img_path', 'seg_map_path')


@dataclass(frozen=True)
class Labels:
    """Labels that the model of a config learns and ignores.

    Args:
        num_classes: ``num_classes`` of the model's heads, by dotted key.
        ignore_index: Label of the pixels that a segmentor ignores.
    """

    num_classes: Mapping[str, int]
    ignore_index: int


@dataclass
class Content:
    """Content of a dataset before its files are read.

    Args:
        title: A line for the report.
        samples: Images with their annotations.
        annotations: Number of boxes, labels or maps.
        findings: Findings about the dataset as a whole and its annotation file.
        folders: Folders of its files.
    """

    title: str
    samples: list[Sample] = field(default_factory=list)
    annotations: int = 0
    findings: list[Finding] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def collect(cfg: Mapping, key: str, labels: Labels, annotated: bool) -> Content:
    """Collect the content of a dataset.

    Args:
        cfg: Config of the dataset, without wrappers.
        key: Dotted key of ``cfg`` in the whole config.
        labels: Labels of the model.
        annotated: If True, a dataset without usable annotations is a fault.
    """
    content = Content(title=key)
    filtered = None
    try:
        filtered = build_dataset(cfg, key)
        if annotated and isinstance(filtered, BaseDataset):
            check_usable(filtered, key)
    except DataError as error:
        content.findings.append(_unusable(key, error))
    try:
        dataset = _build_unfiltered(cfg, key)
    except DataError as error:
        if not content.findings:
            content.findings.append(_unusable(key, error))
        return content
    readers = find_readers(dataset.pipeline)
    if is_coco(dataset):
        with_mask = any(getattr(loader, 'with_mask', False) for loader in find_loaders(dataset.pipeline))
        reader = _select(readers, IMAGE_READER)
        content.samples, content.annotations = collect_coco(dataset, reader, with_mask, content.findings)
    else:
        _collect_parsed(dataset, readers, labels, content)
    content.folders = [dataset.data_prefix[name] for name in _FOLDERS if dataset.data_prefix.get(name)]
    source = dataset.ann_file or next(iter(content.folders), key)
    images = len(content.samples)
    content.title = f'{type(dataset).__name__} of {source}: {images} images, {content.annotations} annotations'
    if filtered is not None and len(filtered) != images:
        content.title += f'; after its own filtering {len(filtered)} images'
    content.findings.extend(_check_num_classes(dataset, key, labels))
    content.findings.extend(_check_duplicates(content.samples))
    return content


def _unusable(key: str, error: DataError) -> Finding:
    return Finding('unusable dataset', key, str(error).removeprefix(key).lstrip(': '))


def _build_unfiltered(cfg: Mapping, key: str) -> BaseDataset:
    """Build a dataset with all its samples in ``data_list``; a COCO dataset without, they are read from the file."""
    cls = _find_class(cfg)
    if isinstance(cls, type) and not issubclass(cls, BaseDataset):
        raise DataError(
            f'{key} is a {cls.__name__}, which cannot be verified.', 'Use a subclass of mmengine.dataset.BaseDataset.'
        )
    cfg = {**cfg, 'serialize_data': False}
    if cfg.get('filter_cfg') is not None:
        cfg['filter_cfg'] = None
    if is_coco(cls):
        cfg['lazy_init'] = True
    return build_dataset(cfg, key)


def _find_class(cfg: Mapping) -> type | None:
    """Look up the class of a config, in the default scope or its own."""
    if not isinstance(cfg['type'], str):
        return cfg['type']
    with MMENGINE_DATASETS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
        return registry.get(cfg['type'])


def _select(readers: Sequence[Reader], default: Reader) -> Reader:
    """Select the reader of the same files as ``default``, which is returned if there is none."""
    return next((reader for reader in readers if reader.key == default.key), default)


def _collect_parsed(dataset: BaseDataset, readers: Sequence[Reader], labels: Labels, content: Content) -> None:
    """Collect samples as the dataset parses them: segmentation maps, labels of images, boxes in other formats."""
    reader, seg_reader = _select(readers, IMAGE_READER), _select(readers, MAP_READER)
    classes = dataset.metainfo.get('classes')
    count = min([*([len(classes)] if classes else []), *labels.num_classes.values()], default=None)
    ignored = ignored_labels(dataset, labels.ignore_index)
    allowed = _learned_labels(dataset, count) | ignored
    seen: Counter[int] = Counter()
    for info in dataset.data_list:
        path = info.get('img_path')
        if not isinstance(path, str):
            message = 'its samples have no file (img_path) and were not verified'
            content.findings.append(Finding('not verified', type(dataset).__name__, message))
            return
        size = (info['height'], info['width']) if {'height', 'width'} <= set(info) else None
        sample_labels = _sample_labels(info)
        seen.update(sample_labels)
        for label in sample_labels:
            if count is not None and not 0 <= label < count:
                message = f'label {label}; allowed are 0 to {count - 1}'
                content.findings.append(Finding('label out of range', path, message))
        annotations = [_to_coco(instance) for instance in info.get('instances', ())]
        sample = Sample(path, reader, size, annotations, False, info.get('seg_map_path'), seg_reader, allowed, ignored)
        content.annotations += len(sample_labels) or sample.seg_map is not None
        content.samples.append(sample)
    if classes and seen:
        source = dataset.ann_file or next(filter(None, dataset.data_prefix.values()), '')
        for label, name in enumerate(classes):
            if not seen[label]:
                content.findings.append(Finding('class without samples', source, f'{name!r} (label {label})'))


def _sample_labels(info: Mapping) -> list[int]:
    """Return the labels of a parsed sample: of the image, or of its objects."""
    if 'gt_label' in info:
        return list(info['gt_label']) if isinstance(info['gt_label'], (list, tuple)) else [info['gt_label']]
    return [instance['bbox_label'] for instance in info.get('instances', ()) if 'bbox_label' in instance]


def _to_coco(instance: Mapping) -> dict:
    """Convert a parsed object to COCO's format."""
    x1, y1, x2, y2 = instance['bbox']
    return dict(bbox=[x1, y1, x2 - x1, y2 - y1], segmentation=instance.get('mask'))


def _learned_labels(dataset: BaseDataset, count: int | None) -> frozenset[int]:
    """Return the labels in the files of segmentation maps before ``reduce_zero_label`` and ``label_map``."""
    labels = getattr(dataset, 'label_map', None) or range(256 if count is None else count)
    return frozenset(label + bool(getattr(dataset, 'reduce_zero_label', False)) for label in labels)


def _check_num_classes(dataset: BaseDataset, key: str, labels: Labels) -> Iterator[Finding]:
    classes = dataset.metainfo.get('classes')
    for name, number in labels.num_classes.items():
        if classes and len(classes) != number:
            message = f'metainfo.classes has {len(classes)} names, but {name} is {number}'
            yield Finding('number of classes', key, message)


def _check_duplicates(samples: Sequence[Sample]) -> Iterator[Finding]:
    counts = Counter(os.path.normpath(sample.image) for sample in samples)
    for path, count in counts.items():
        if count > 1:
            yield Finding('duplicate file', path, f'the file is listed {count} times')
