"""Build datasets and check that they have something to learn from, with errors that name the key of the config."""

import contextlib
import gc
from collections.abc import Iterator, Mapping

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset

from mmstvit.errors import DataError

from .coco import explain_unusable, is_coco, is_polygon, read_annotations, summarize
from .images import MAP_READER, UnreadableError, find_loaders, find_map_reader
from .segmentation_labels import find_labels
from .wrappers import inner_datasets

# Errors of datasets for a bad file or a bad option.
_BUILD_ERRORS = (
    *(AssertionError, AttributeError, ImportError, IndexError, KeyError, OSError, RuntimeError, SyntaxError),
    *(TypeError, ValueError),
)


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Pause garbage collection, which looks at all of a large annotation file again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def build_dataset(cfg: Mapping | Dataset, key: str) -> Dataset:
    """Build a dataset with all its samples, or without if ``lazy_init``.

    Args:
        cfg: Config of the dataset or of a dataset wrapper; or the dataset, whose samples are loaded if they are not.
        key: Dotted key of ``cfg`` in the whole config, for messages.

    Raises:
        DataError: The dataset cannot be built or has no samples.
    """
    lazy = isinstance(cfg, Mapping) and cfg.get('lazy_init')
    try:
        with paused_garbage_collection():
            dataset = MMENGINE_DATASETS.build(cfg) if isinstance(cfg, Mapping) else cfg
            if hasattr(dataset, 'full_init') and not lazy:
                dataset.full_init()
    except _BUILD_ERRORS as error:
        # MMEngine fails on an empty list of samples too, with an error that does not say so.
        for inner_key, inner_cfg in inner_datasets(cfg, key):
            check_not_empty(_build_unserialized(inner_cfg), inner_key)
        reason = ' '.join(str(error).split())
        raise DataError(
            f'{key} cannot be built: {type(error).__name__}: {reason.rstrip(".")}.',
            'Correct the config of the dataset, or its files.',
        ) from error
    if not lazy:
        for inner_key, inner in inner_datasets(dataset, key):
            check_not_empty(inner, inner_key)
    return dataset


def _build_unserialized(cfg: object) -> Dataset | None:
    """Build a dataset in a way that does not fail if it is empty; None if it fails for another reason."""
    try:
        return MMENGINE_DATASETS.build({**cfg, 'serialize_data': False}) if isinstance(cfg, Mapping) else None
    except _BUILD_ERRORS:
        return None


def _explain(dataset: BaseDataset) -> tuple[str, str]:
    """Explain why a COCO dataset has no usable object; returns the problem and a remedy."""
    return explain_unusable(summarize(read_annotations(dataset), dataset), dataset.metainfo['classes'])


def check_not_empty(dataset: Dataset | None, key: str) -> None:
    """Check that a dataset has samples; raises DataError."""
    if not isinstance(dataset, BaseDataset) or len(dataset):
        return
    if is_coco(dataset):
        problem, remedy = _explain(dataset)
    elif dataset.ann_file:
        problem, remedy = f'{dataset.ann_file} lists no files.', 'Set ann_file to a file with samples.'
    else:
        folder = dataset.data_prefix.get('img_path') or dataset.data_prefix.get('img')
        suffix = f' with the suffix {dataset.img_suffix}' if hasattr(dataset, 'img_suffix') else ''
        problem, remedy = f'the folder {folder} has no images{suffix}.', 'Set data_root and data_prefix to the images.'
    raise DataError(f'{key} has no samples: {problem}', remedy)


def check_usable(dataset: BaseDataset, key: str) -> None:
    """Check that a dataset has an object or a labeled pixel to learn from; a model would train on a loss of 0.

    The search ends at the first sample that has one: on good data it is short.

    Args:
        dataset: The dataset, after its own filtering.
        key: Dotted key of the dataset in the config, for the message.

    Raises:
        DataError: There is none; the message gives the reason.
    """
    if not any(isinstance(loader, LoadAnnotations) for loader in find_loaders(dataset.pipeline)):
        return  # classification, or samples without annotations
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        if 'instances' in info:
            if any(map(_is_usable, info['instances'])):
                return
        elif not info.get('seg_map_path') or _has_labels(dataset, info['seg_map_path']):
            return
    if 'instances' not in info:
        reduced = info.get('reduce_zero_label', False)
        raise DataError(
            f'{key}: every pixel of its {len(dataset)} segmentation maps is ignored (reduce_zero_label={reduced}), for '
            f'example in {info["seg_map_path"]}.',
            'Correct the labels in the maps, or set reduce_zero_label of the dataset.',
        )
    unusable = 'its annotations are empty or unusable.', 'Correct the annotations, or set ann_file to other ones.'
    problem, remedy = _explain(dataset) if is_coco(dataset) else unusable
    raise DataError(f'{key}: none of its {len(dataset)} images has a usable object: {problem}', remedy)


def _is_usable(instance: Mapping) -> bool:
    """Return True if MMDetection learns from an object: it is not ignored and has a valid mask or none at all."""
    mask = instance.get('mask')
    return not instance.get('ignore_flag') and (not isinstance(mask, list) or any(map(is_polygon, mask)))


def _has_labels(dataset: BaseDataset, path: str) -> bool:
    """Return True if a segmentation map has a pixel that is not ignored; an unreadable map has none."""
    try:
        labels = (find_map_reader(dataset.pipeline) or MAP_READER).read(path)
    except UnreadableError:
        return False
    known = find_labels(dataset)
    return bool((~np.isin(labels, list(known.ignored if known else {255}))).any())
