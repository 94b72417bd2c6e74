"""From a dataset of a config to what there is to look at, without what the dataset's own filtering hides."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS

from mmstvit.errors import DataError

from ..pipeline import file_key, find_loaders
from ..usable import BUILD_ERRORS, build_dataset, check_usable, describe, is_coco
from ..wrapper import leaves
from .coco import collect_coco
from .faults import Fault
from .sample import Reader, Sample

IMAGE_SUFFIXES = ('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
_FOLDERS = ('img', 'img_path', 'seg_map_path')


@dataclass
class Content:
    """What a dataset has, before its files are looked at.

    Args:
        about: What it is, in words.
        samples: The files, with their annotations.
        annotations: Number of boxes, labels or maps.
        faults: Of the annotations as a whole.
        folders: Where its files are.
    """

    about: str
    samples: list[Sample] = field(default_factory=list)
    annotations: int = 0
    faults: list[Fault] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)


def collect(cfg: Mapping, key: str, num_classes: Mapping[str, int], ignore_index: int, annotated: bool) -> Content:
    """What a dataset has.

    Args:
        cfg: Its config, which is of no wrapper.
        key: Where that is in the whole config.
        num_classes: Of the model's heads, by dotted key.
        ignore_index: Label of the pixels that are not learned.
        annotated: Whether a dataset without annotations is at fault.
    """
    content = Content(about=key)
    used = None
    try:
        used = _count_usable(cfg, key, annotated)
    except DataError as error:
        content.faults.append(Fault('unusable dataset', key, str(error)))
    try:
        leaf = _build(cfg, key)
    except DataError as error:
        if not content.faults:
            content.faults.append(Fault('unusable dataset', key, str(error)))
        return content
    loaders = list(find_loaders(leaf.pipeline))
    reader = _reader(loaders, LoadImageFromFile, Reader('color', 'cv2'))
    if is_coco(leaf):
        with_mask = any(getattr(loader, 'with_mask', False) for loader in loaders)
        content.samples, content.annotations = collect_coco(leaf, reader, with_mask, content.faults)
    else:
        _collect_parsed(leaf, reader, loaders, num_classes, ignore_index, content)
    source = leaf.ann_file or next(_folders(leaf), key)
    content.about = (
        f'{type(leaf).__name__} of {source}: {len(content.samples)} images, {content.annotations} annotations'
    )
    if used not in (None, len(content.samples)):
        content.about += f'; its own filtering leaves {used} images'
    content.folders = list(_folders(leaf))
    _check_num_classes(leaf, key, num_classes, content.faults)
    _check_twice(content)
    return content


def _build(cfg: Mapping, key: str) -> BaseDataset:
    """The dataset with all its samples in ``data_list``; COCO's without, since they are read from the file."""
    cls = _find_class(cfg)
    if isinstance(cls, type) and not issubclass(cls, BaseDataset):
        raise DataError(f'{key} is a {cls.__name__}; it must be a BaseDataset of MMEngine to be verified.')
    cfg = {**cfg, 'serialize_data': False}
    if cfg.get('filter_cfg') is not None:
        cfg['filter_cfg'] = None
    if not is_coco(cls):
        return build_dataset(cfg, key)
    try:
        return MMENGINE_DATASETS.build({**cfg, 'lazy_init': True})
    except BUILD_ERRORS as error:
        raise DataError(f'{key} cannot be built: {describe(error)}') from error


def _find_class(cfg: Mapping) -> type | None:
    """The class that a config names, in the library that is the default scope or its own."""
    if not isinstance(cfg['type'], str):
        return cfg['type']
    with MMENGINE_DATASETS.switch_scope_and_registry(cfg.get('_scope_')) as registry:
        return registry.get(cfg['type'])


def _reader(loaders: list, kind: type, default: Reader) -> Reader:
    """How the pipeline reads images, or maps; the default if it does not."""
    return next((Reader.of(loader) for loader in loaders if isinstance(loader, kind) and file_key(loader)), default)


def _folders(leaf: BaseDataset) -> Iterator[str]:
    prefixes = leaf.data_prefix
    yield from (prefixes[name] for name in _FOLDERS if prefixes.get(name))


def _collect_parsed(
    leaf: BaseDataset,
    reader: Reader,
    loaders: list,
    num_classes: Mapping[str, int],
    ignore_index: int,
    content: Content,
) -> None:
    """Samples as the dataset itself reads them: segmentation maps, labels of images, boxes in other formats."""
    count = _label_count(leaf, num_classes)
    seg_reader = _reader(loaders, LoadAnnotations, Reader('unchanged', 'pillow'))
    allowed, ignored = _allowed_labels(leaf, count, ignore_index)
    seen: Counter[int] = Counter()
    for info in leaf.data_list:
        path = info.get('img_path')
        if not isinstance(path, str):
            message = 'its samples are no single files (img_path); they were not looked at'
            content.faults.append(Fault('not verified', type(leaf).__name__, message, warning=True))
            return
        size = (info['height'], info['width']) if {'height', 'width'} <= set(info) else None
        annotations = [_to_coco(instance) for instance in info.get('instances', ())]
        labels = [instance['bbox_label'] for instance in info.get('instances', ()) if 'bbox_label' in instance]
        if 'gt_label' in info:
            labels = info['gt_label'] if isinstance(info['gt_label'], (list, tuple)) else [info['gt_label']]
        seen.update(labels)
        for label in labels:
            if count is not None and not 0 <= label < count:
                message = f'label {label}; allowed are 0 to {count - 1}'
                content.faults.append(Fault('label out of range', path, message))
        seg_map = info.get('seg_map_path')
        content.annotations += len(labels) or seg_map is not None
        content.samples.append(
            Sample(path, reader, size, annotations, False, seg_map, seg_reader, allowed, ignored)
            if seg_map is not None
            else Sample(path, reader, size, annotations)
        )
    classes = leaf.metainfo.get('classes')
    if classes and seen:
        for i, name in enumerate(classes):
            if not seen[i]:
                where = leaf.ann_file or next(_folders(leaf), '')
                content.faults.append(Fault('class without samples', where, f'{name!r} (label {i})', warning=True))


def _to_coco(instance: Mapping) -> dict:
    """A parsed object as COCO has it."""
    x1, y1, x2, y2 = instance['bbox']
    return dict(bbox=[x1, y1, x2 - x1, y2 - y1], segmentation=instance.get('mask'))


def _label_count(leaf: BaseDataset, num_classes: Mapping[str, int]) -> int | None:
    classes = leaf.metainfo.get('classes')
    counts = [*([len(classes)] if classes else []), *num_classes.values()]
    return min(counts, default=None)


def _allowed_labels(leaf: BaseDataset, count: int | None, ignore_index: int) -> tuple[frozenset[int], frozenset[int]]:
    """Labels that a map may have, as they are in the file, and those of them that are not learned.

    MMSegmentation takes 1 from every label if ``reduce_zero_label``, and 0 becomes 255; then it exchanges them by
    ``label_map``, which leaves those alone that it does not have.
    """
    label_map = getattr(leaf, 'label_map', None)
    if label_map is not None:
        labels = frozenset(label_map)
        ignored = frozenset(old for old, new in label_map.items() if new == ignore_index)
    else:
        labels, ignored = frozenset(range(256 if count is None else count)), frozenset()
    if getattr(leaf, 'reduce_zero_label', False):
        labels, ignored = (frozenset(label + 1 for label in part) for part in (labels, ignored))
        ignored |= {0}
    ignored |= {ignore_index}
    return labels | ignored, ignored


def _check_num_classes(leaf: BaseDataset, key: str, num_classes: Mapping[str, int], faults: list[Fault]) -> None:
    classes = leaf.metainfo.get('classes')
    for name, number in num_classes.items():
        if classes and len(classes) != number:
            message = f'metainfo.classes has {len(classes)} names, but {name} is {number}'
            faults.append(Fault('number of classes', key, message))


def _check_twice(content: Content) -> None:
    counts = Counter(os.path.normpath(sample.image) for sample in content.samples)
    for path, count in counts.items():
        if count > 1:
            content.faults.append(Fault('duplicate file', path, f'listed {count} times'))


def _count_usable(cfg: Mapping, key: str, annotated: bool) -> int:
    """Build the dataset with its own filtering, as a training would, and look for something to learn from.

    Returns:
        How many images it uses.

    Raises:
        DataError: There is nothing.
    """
    dataset = build_dataset(cfg, key)
    if annotated:
        for leaf in leaves(dataset):
            check_usable(leaf, key)
    return len(dataset)
