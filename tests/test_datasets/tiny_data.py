"""Data sets of a few small images, as each of the three libraries reads them, and configs for them."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

HEIGHT, WIDTH = 24, 32
COUNT = 4
CLASSES = ('a', 'b')
LIBRARIES = ('mmdet', 'mmseg', 'mmpretrain')


def draw(seed: int, *shape: int) -> np.ndarray:
    """Draw noise that depends on the seed."""
    return np.random.default_rng(seed).integers(0, 256, shape or (HEIGHT, WIDTH, 3), np.uint8)


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), array)


def film(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (64, 48))
    for i in range(count):
        writer.write(draw(i, 48, 64, 3))
    writer.release()


def coco_content(classes: tuple[str, ...] = CLASSES) -> dict:
    """An annotation file with one object per image, masks as polygons and RLE in turn."""
    annotations = []
    for i in range(COUNT):
        polygon = [[4, 5, 14, 5, 14, 11, 4, 11]]
        # By columns: 4 of 24 pixels, from row 5 to 10, for 10 columns.
        counts = [4 * HEIGHT + 5] + [6, HEIGHT - 6] * 9 + [6, HEIGHT - 11 + 18 * HEIGHT]
        mask = polygon if i % 2 else dict(size=[HEIGHT, WIDTH], counts=counts)
        box = [4, 5, 10, 6]
        label = i % 2 + 1
        annotations.append(
            dict(id=i + 1, image_id=i + 1, category_id=label, bbox=box, area=60, iscrowd=0, segmentation=mask)
        )
    images = [dict(id=i + 1, file_name=f'{i}.jpg', height=HEIGHT, width=WIDTH) for i in range(COUNT)]
    return dict(
        images=images, annotations=annotations, categories=[dict(id=i, name=name) for i, name in enumerate(classes, 1)]
    )


def make_mmdet(folder: Path, split: str, seed: int) -> dict:
    for i in range(COUNT):
        write(folder / split / f'{i}.jpg', draw(seed + i))
    (folder / f'{split}.json').write_text(json.dumps(coco_content()))
    return dict(
        type='CocoDataset',
        data_root=str(folder),
        ann_file=f'{split}.json',
        data_prefix=dict(img=f'{split}/'),
        metainfo=dict(classes=CLASSES),
        filter_cfg=dict(filter_empty_gt=True) if split == 'train' else None,
        test_mode=split != 'train',
        serialize_data=False,  # serializing ends with a slow garbage collection
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    )


def make_mmseg(folder: Path, split: str, seed: int) -> dict:
    for i in range(COUNT):
        write(folder / 'images' / split / f'{i}.jpg', draw(seed + i))
        write(folder / 'maps' / split / f'{i}.png', draw(seed + i, HEIGHT, WIDTH) % 2)
    return dict(
        type='BaseSegDataset',
        data_root=str(folder),
        data_prefix=dict(img_path=f'images/{split}', seg_map_path=f'maps/{split}'),
        metainfo=dict(classes=CLASSES),
        serialize_data=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    )


def make_mmpretrain(folder: Path, split: str, seed: int) -> dict:
    for i in range(COUNT):
        write(folder / split / CLASSES[i % 2] / f'{i}.jpg', draw(seed + i))
    return dict(
        type='CustomDataset',
        data_root=str(folder),
        data_prefix=split,
        classes=list(CLASSES),
        serialize_data=False,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(type='PackInputs'),
        ],
    )


MAKERS: dict[str, Callable[[Path, str, int], dict]] = {
    'mmdet': make_mmdet,
    'mmseg': make_mmseg,
    'mmpretrain': make_mmpretrain,
}
HEADS = {
    'mmdet': dict(roi_head=dict(bbox_head=dict(num_classes=2), mask_head=dict(num_classes=2))),
    'mmseg': dict(decode_head=dict(num_classes=2)),
    'mmpretrain': dict(head=dict(num_classes=2)),
}


def make_config(library: str, folder: Path) -> Config:
    """Write a training and a validation split into ``folder``; returns a config of them with heads as the model."""
    loaders = {
        f'{split}_dataloader': dict(dataset=MAKERS[library](folder, split, seed))
        for split, seed in (('train', 0), ('val', 100))
    }
    return Config(dict(default_scope=library, model=HEADS[library], **loaders))


def images(library: str, folder: Path, split: str) -> list[Path]:
    """The images of a split, in the order of the dataset."""
    root = folder / 'images' / split if library == 'mmseg' else folder / split
    return sorted(root.rglob('*.jpg'))
