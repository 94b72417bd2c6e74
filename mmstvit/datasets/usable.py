"""Check that a dataset has usable annotations."""

from collections.abc import Mapping

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine.dataset import BaseDataset

from mmstvit.errors import DataError

from .coco import explain_unusable, is_coco, is_polygon, read_json, summarize
from .images import MAP_READER, UnreadableError, find_loaders, find_map_reader
from .label_maps import find_labels


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
    problem, remedy = (
        'its annotations are empty or unusable.',
        'Correct the annotations, or set ann_file to other ones.',
    )
    if is_coco(dataset):
        annotations = summarize(read_json(dataset), dataset)
        problem, remedy = explain_unusable(annotations, dataset.metainfo['classes'])
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
