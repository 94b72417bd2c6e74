"""Whether there is anything to learn from in a dataset, and why not."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine import fileio
from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from torch.utils.data import Dataset

from mmstvit.errors import DataError

from .pipeline import find_loaders
from .reading import UnreadableError, decode, read_bytes
from .wrapper import leaf_configs, leaves

# What datasets raise for a bad file or a bad option.
BUILD_ERRORS = (AssertionError, AttributeError, KeyError, OSError, RuntimeError, TypeError, ValueError)


def build_dataset(cfg: Mapping, key: str) -> Dataset:
    """Build a dataset.

    Args:
        cfg: Its config, perhaps of a wrapper.
        key: Where that is in the whole config, for messages.

    Raises:
        DataError: It cannot be built, or has no sample.
    """
    try:
        dataset = MMENGINE_DATASETS.build(cfg)
        if hasattr(dataset, 'full_init'):
            dataset.full_init()
    except BUILD_ERRORS as error:
        # MMEngine's datasets fail on an empty list of samples too, without a word on that.
        for leaf_key, leaf_cfg in leaf_configs(key, cfg):
            _refuse_empty(_build_again(leaf_cfg), leaf_key)
        raise DataError(f'{key} cannot be built: {describe(error)}') from error
    for (leaf_key, _), leaf in zip(leaf_configs(key, cfg), leaves(dataset), strict=False):
        _refuse_empty(leaf, leaf_key)
    return dataset


def describe(error: Exception) -> str:
    """An exception in one line."""
    return f'{type(error).__name__}: {" ".join(str(error).split())}'


def _build_again(cfg: Mapping) -> Dataset | None:
    """A dataset that could not be built, in a way that does not fail because it is empty; None if it fails again."""
    try:
        return MMENGINE_DATASETS.build({**cfg, 'serialize_data': False})
    except BUILD_ERRORS:
        return None


def _refuse_empty(leaf: Dataset | None, key: str) -> None:
    if isinstance(leaf, BaseDataset) and len(leaf) == 0:
        raise DataError(f'{key} has no sample: {_why_empty(leaf)}')


def _why_empty(leaf: BaseDataset) -> str:
    if is_coco(leaf):
        return explain_coco(leaf)
    prefix = leaf.data_prefix.get('img_path') or leaf.data_prefix.get('img')
    suffix = f' with the suffix {leaf.img_suffix}' if hasattr(leaf, 'img_suffix') else ''
    if leaf.ann_file:
        return f'{leaf.ann_file} lists none.'
    return f'the folder {prefix} has no image{suffix}.'


def is_coco(dataset: BaseDataset | type) -> bool:
    """Whether a dataset, or a class of such, reads COCO's annotation files as MMDetection does."""
    load = getattr(dataset, 'load_data_list', None)
    return getattr(load, '__module__', '') == 'mmdet.datasets.coco' and load.__qualname__.startswith('CocoDataset.')


def check_usable(leaf: BaseDataset, key: str) -> None:
    """Refuse a dataset without any sample to learn from, after its own filtering; it would train on a loss of zero.

    The first sample with an object, or with a labelled pixel, ends the search: on good data that is soon.

    Args:
        leaf: The dataset.
        key: Where it is in the config, for the message.

    Raises:
        DataError: There is none; the message says why.
    """
    if not any(isinstance(loader, LoadAnnotations) for loader in find_loaders(leaf.pipeline)):
        return  # classification, or samples without annotation
    for index in range(len(leaf)):
        info = leaf.get_data_info(index)
        if 'instances' in info:
            if any(map(_is_usable, info['instances'])):
                return
        elif not info.get('seg_map_path') or _has_labels(leaf, info):
            return
    if 'instances' not in info:
        raise DataError(
            f'{key}: no pixel of its {len(leaf)} segmentation maps has a label that is not ignored '
            f'(reduce_zero_label={info.get("reduce_zero_label", False)}). {info["seg_map_path"]} is one of them.'
        )
    reason = explain_coco(leaf) if is_coco(leaf) else 'the annotations are empty, or none is usable.'
    raise DataError(f'{key}: none of its {len(leaf)} images has a usable object: {reason}')


def _is_usable(instance: Mapping) -> bool:
    """Whether MMDetection learns from an object: it is no crowd, and its mask, if it has one, is a mask."""
    if instance.get('ignore_flag'):
        return False
    mask = instance.get('mask')
    return not isinstance(mask, list) or any(len(polygon) >= 6 and len(polygon) % 2 == 0 for polygon in mask)


def _has_labels(leaf: BaseDataset, info: Mapping) -> bool:
    """Whether a segmentation map has a pixel that is not ignored; one that cannot be read has none."""
    try:
        labels = decode(read_bytes(info['seg_map_path'], getattr(leaf, 'backend_args', None)), 'unchanged', 'pillow')
    except UnreadableError:
        return False
    ignored = [255, 0] if info.get('reduce_zero_label') else [255]
    return bool((~np.isin(labels, ignored)).any())


def explain_coco(leaf: BaseDataset) -> str:
    """Why a COCO dataset has no usable object, from its annotation file."""
    content = fileio.load(leaf.ann_file, file_format='json', backend_args=leaf.backend_args)
    images = {image['id']: image for image in content['images']}
    annotations = content.get('annotations', [])
    if not annotations:
        return f'{leaf.ann_file} has {len(images)} images and no annotation.'
    classes = list(leaf.metainfo['classes'])
    names = {category['id']: category['name'] for category in content['categories']}
    if not set(names.values()) & set(classes):
        return (
            f'not one category of {leaf.ann_file} ({some(names.values())}) is in metainfo.classes ({some(classes)}). '
            f'Set metainfo=dict(classes=...) of the dataset to the names in the file.'
        )
    reasons = Counter(_why_unusable(annotation, images, names, classes) for annotation in annotations)
    counts = ', '.join(f'{count} {reason}' for reason, count in reasons.most_common())
    return f'of the {len(annotations)} annotations in {leaf.ann_file}: {counts}.'


def _why_unusable(annotation: Mapping, images: Mapping, names: Mapping, classes: list[str]) -> str:
    """The first of MMDetection's conditions that an annotation does not meet."""
    if annotation['image_id'] not in images:
        return 'of an image that is not in the file'
    if names.get(annotation['category_id']) not in classes:
        return 'of a category that is not in metainfo.classes'
    if annotation.get('iscrowd'):
        return 'crowd (iscrowd=1)'
    if annotation.get('ignore'):
        return 'to be ignored (ignore=1)'
    _, _, width, height = annotation['bbox']
    if width < 1 or height < 1 or annotation['area'] <= 0:
        return 'with an empty box or area'
    return 'with a box outside the image, a mask that is none, or in an image that filter_cfg leaves out'


def some(names: object) -> str:
    """The first few of many names."""
    names = list(names)
    return ', '.join(map(repr, names[:5])) + (', …' if len(names) > 5 else '')
