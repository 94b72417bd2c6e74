"""Check that a dataset can be built and has usable annotations."""

from collections.abc import Mapping

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset

from mmstvit.errors import DataError

from .coco import explain_unusable, is_coco, is_polygon
from .images import MAP_READER, UnreadableError, find_loaders, find_readers
from .wrappers import inner_datasets

# Errors of datasets for a bad file or a bad option.
_BUILD_ERRORS = (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)


def build_dataset(cfg: Mapping, key: str) -> Dataset:
    """Build a dataset with all its samples, or without if ``lazy_init``.

    Args:
        cfg: Config of the dataset or of a dataset wrapper.
        key: Dotted key of ``cfg`` in the whole config, for messages.

    Raises:
        DataError: The dataset cannot be built or has no samples.
    """
    try:
        dataset = MMENGINE_DATASETS.build(cfg)
        if hasattr(dataset, 'full_init') and not cfg.get('lazy_init'):
            dataset.full_init()
    except _BUILD_ERRORS as error:
        # MMEngine fails on an empty list of samples too, with an error that does not say so.
        for inner_key, inner_cfg in inner_datasets(cfg, key):
            _check_not_empty(_build_unserialized(inner_cfg), inner_key)
        reason = ' '.join(str(error).split())
        raise DataError(f'{key} cannot be built: {type(error).__name__}: {reason}') from error
    if not cfg.get('lazy_init'):
        for inner_key, inner in inner_datasets(dataset, key):
            _check_not_empty(inner, inner_key)
    return dataset


def _build_unserialized(cfg: Mapping) -> Dataset | None:
    """Build a dataset in a way that does not fail if it is empty; None if it fails for another reason."""
    try:
        return MMENGINE_DATASETS.build({**cfg, 'serialize_data': False})
    except _BUILD_ERRORS:
        return None


def _check_not_empty(dataset: Dataset | None, key: str) -> None:
    if not isinstance(dataset, BaseDataset) or len(dataset):
        return
    if is_coco(dataset):
        problem, remedy = explain_unusable(dataset)
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
    problem, remedy = explain_unusable(dataset) if is_coco(dataset) else ('its annotations are empty or unusable.', '')
    raise DataError(f'{key}: none of its {len(dataset)} images has a usable object: {problem}', remedy)


def _is_usable(instance: Mapping) -> bool:
    """Return True if MMDetection learns from an object: it is not ignored and has a valid mask or none at all."""
    mask = instance.get('mask')
    return not instance.get('ignore_flag') and (not isinstance(mask, list) or any(map(is_polygon, mask)))


def _has_labels(dataset: BaseDataset, path: str) -> bool:
    """Return True if a segmentation map has a pixel that is not ignored; an unreadable map has none."""
    reader = next((reader for reader in find_readers(dataset.pipeline) if reader.key == 'seg_map_path'), MAP_READER)
    try:
        labels = reader.read(path)
    except UnreadableError:
        return False
    return bool((~np.isin(labels, list(ignored_labels(dataset)))).any())


def ignored_labels(dataset: BaseDataset, ignore_index: int = 255) -> frozenset[int]:
    """Find the labels in the files of segmentation maps that a segmentor ignores.

    MMSegmentation subtracts 1 from every label if ``reduce_zero_label``, and 0 becomes 255; then ``label_map`` replaces
    the labels that it has.
    """
    reduced = bool(getattr(dataset, 'reduce_zero_label', False))
    replaced = (getattr(dataset, 'label_map', None) or {}).items()
    ignored = frozenset(old + reduced for old, new in replaced if new == ignore_index) | {ignore_index}
    return ignored | {0} if reduced else ignored
