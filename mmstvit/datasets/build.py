"""Build datasets, with errors that name the key of the config and the reason."""

from collections.abc import Mapping

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset

from mmstvit.errors import DataError

from .coco import explain_unusable, is_coco, paused_garbage_collection, read_json, summarize
from .wrappers import inner_datasets

# Errors of datasets for a bad file or a bad option.
_BUILD_ERRORS = (AssertionError, AttributeError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError)


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


def check_not_empty(dataset: Dataset | None, key: str) -> None:
    """Check that a dataset has samples; raises DataError."""
    if not isinstance(dataset, BaseDataset) or len(dataset):
        return
    if is_coco(dataset):
        annotations = summarize(read_json(dataset), dataset)
        problem, remedy = explain_unusable(annotations, dataset.metainfo['classes'])
    elif dataset.ann_file:
        problem, remedy = f'{dataset.ann_file} lists no files.', 'Set ann_file to a file with samples.'
    else:
        folder = dataset.data_prefix.get('img_path') or dataset.data_prefix.get('img')
        suffix = f' with the suffix {dataset.img_suffix}' if hasattr(dataset, 'img_suffix') else ''
        problem, remedy = f'the folder {folder} has no images{suffix}.', 'Set data_root and data_prefix to the images.'
    raise DataError(f'{key} has no samples: {problem}', remedy)
