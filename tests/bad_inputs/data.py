"""Data sets with faults in them: what ``verify_dataset.py`` finds, and what the tools refuse before they begin."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..test_datasets.tiny_data import HEIGHT, WIDTH, draw, images, make_config, write
from .case import TRAIN, case

VERIFY = 'tools/misc/verify_dataset.py mine.py --split train --num-workers 0'
FOLDER = Path('data/tiny')
ANNOTATIONS = FOLDER / 'train.json'
COCO = 'configs/mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco.py'
SCENES = 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'


def make(library: str) -> None:
    """Write a data set of four images per split, and a config for it."""
    make_config(library, FOLDER).dump('mine.py')


def change(edit: Callable[[dict], None]) -> None:
    """Write a detection data set with other annotations."""
    make('mmdet')
    content = json.loads(ANNOTATIONS.read_text())
    edit(content)
    ANNOTATIONS.write_text(json.dumps(content))


case(
    'a missing data set',
    f'tools/train.py {SCENES}',
    'data/scenes/coco/',
    'train_dataloader.dataset.data_root',
    'tools/dataset_converters/scenes.py',
)
case(
    'missing COCO',
    f'tools/train.py {COCO} --cfg-options model.backbone.init_cfg=None',
    'data/coco/',
    'train_dataloader.dataset.data_root',
    'train2017/',
)
case(
    'a missing folder',
    f'{TRAIN} --cfg-options train_dataloader.dataset.data_prefix=train2',
    'data/scenes/imagenet/train2',
    'train_dataloader.dataset.data_prefix',
)


@case(
    'a missing annotation file',
    f'tools/train.py {SCENES} --cfg-options train_dataloader.dataset.ann_file=annotations/none.json',
    'data/scenes/coco/annotations/none.json',
    'train_dataloader.dataset.ann_file',
)
def _() -> None:
    Path('data/scenes/coco').mkdir(parents=True)


@case('a text instead of an image', VERIFY, 'train/1.jpg', 'unreadable image')
def _() -> None:
    make('mmdet')
    images('mmdet', FOLDER, 'train')[1].write_text('<html>')


@case('half of an image', VERIFY, '1.jpg', 'unreadable image')
def _() -> None:
    make('mmpretrain')
    path = images('mmpretrain', FOLDER, 'train')[2]
    path.write_bytes(path.read_bytes()[:300])


@case('a missing image', VERIFY, 'does not exist')
def _() -> None:
    make('mmdet')
    images('mmdet', FOLDER, 'train')[0].unlink()


@case('an image of another size than annotated', VERIFY, '3.jpg', 'wrong image size')
def _() -> None:
    make('mmdet')
    write(images('mmdet', FOLDER, 'train')[3], draw(0, WIDTH, HEIGHT, 3))


@case('annotations that are no JSON', VERIFY, 'not valid JSON')
def _() -> None:
    make('mmdet')
    ANNOTATIONS.write_text(ANNOTATIONS.read_text()[:100])


@case('annotations of another kind', VERIFY, 'train.json', 'annotations')
def _() -> None:
    make('mmdet')
    ANNOTATIONS.write_text('{"images": []}')


@case('a box outside its image', VERIFY, 'FAULT')
def _() -> None:
    change(lambda content: content['annotations'][0].update(bbox=[20, 5, 30, 6]))


@case('a mask outside its image', VERIFY, 'FAULT')
def _() -> None:
    change(lambda content: content['annotations'][1].update(segmentation=[[4, 5, 90, 5, 90, 11, 4, 11]]))


@case('a category that the file does not define', VERIFY, 'unknown category')
def _() -> None:
    change(lambda content: content['annotations'][2].update(category_id=9))


@case('annotations of an image that is not listed', VERIFY, 'unknown image id')
def _() -> None:
    change(lambda content: content['annotations'][2].update(image_id=99))


@case('two annotations of one id', VERIFY, 'duplicate annotation id')
def _() -> None:
    change(lambda content: content['annotations'][2].update(id=1))


@case('a label beyond the classes', VERIFY, 'label out of range')
def _() -> None:
    make('mmseg')
    write(FOLDER / 'maps' / 'train' / '1.png', np.full((HEIGHT, WIDTH), 7, np.uint8))


@case('a segmentation map of another size', VERIFY, 'wrong segmentation map size')
def _() -> None:
    make('mmseg')
    write(FOLDER / 'maps' / 'train' / '2.png', np.zeros((WIDTH, HEIGHT), np.uint8))


@case('a segmentation map in color', VERIFY, 'segmentation map')
def _() -> None:
    make('mmseg')
    write(FOLDER / 'maps' / 'train' / '0.png', draw(0))


@case('more folders than classes', VERIFY, 'unusable dataset')
def _() -> None:
    make('mmpretrain')
    write(FOLDER / 'train' / 'thumbnails' / '0.jpg', draw(9))
