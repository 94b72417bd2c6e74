"""Data sets with faults in them: what ``verify_dataset.py`` finds, and what the tools refuse before they begin."""

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..test_datasets.tiny_data import HEIGHT, WIDTH, draw, images, make_config, write
from .case import TRAIN, case

data = functools.partial(case, 'Data')
VERIFY = 'tools/misc/verify_dataset.py mine.py --split train --num-workers 0'
FOLDER = Path('data/tiny')
ANNOTATIONS = FOLDER / 'train.json'


def make(library: str) -> None:
    """A data set of four images per split, and a config for it."""
    make_config(library, FOLDER).dump('mine.py')


def change(edit: Callable[[dict], None]) -> None:
    """A detection data set with other annotations."""
    make('mmdet')
    content = json.loads(ANNOTATIONS.read_text())
    edit(content)
    ANNOTATIONS.write_text(json.dumps(content))


data(
    'A data set that is not there',
    'tools/train.py configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py',
    'tools/dataset_converters/scenes.py',
)
data(
    'A folder that is not there',
    f'{TRAIN} --cfg-options train_dataloader.dataset.data_prefix=train2',
    'train2 does not exist',
)


@data('An image that is none', VERIFY, 'unreadable image')
def _() -> None:
    make('mmdet')
    images('mmdet', FOLDER, 'train')[1].write_text('<html>')


@data('Half of an image', VERIFY, 'unreadable image: 1')
def _() -> None:
    make('mmpretrain')
    path = images('mmpretrain', FOLDER, 'train')[2]
    path.write_bytes(path.read_bytes()[:300])


@data('An image that is missing', VERIFY, 'does not exist')
def _() -> None:
    make('mmdet')
    images('mmdet', FOLDER, 'train')[0].unlink()


@data('An image of another size than annotated', VERIFY, 'wrong image size')
def _() -> None:
    make('mmdet')
    write(images('mmdet', FOLDER, 'train')[3], draw(0, WIDTH, HEIGHT, 3))


@data('Annotations that are no JSON', VERIFY, 'not valid JSON')
def _() -> None:
    make('mmdet')
    ANNOTATIONS.write_text(ANNOTATIONS.read_text()[:100])


@data('Annotations of another kind', VERIFY, 'no list')
def _() -> None:
    make('mmdet')
    ANNOTATIONS.write_text('{"images": []}')


@data('A box outside its image', VERIFY, 'FAULT')
def _() -> None:
    change(lambda content: content['annotations'][0].update(bbox=[20, 5, 30, 6]))


@data('A mask outside its image', VERIFY, 'FAULT')
def _() -> None:
    change(lambda content: content['annotations'][1].update(segmentation=[[4, 5, 90, 5, 90, 11, 4, 11]]))


@data('A category that the file does not define', VERIFY, 'unknown category')
def _() -> None:
    change(lambda content: content['annotations'][2].update(category_id=9))


@data('Annotations of an image that is not listed', VERIFY, 'unknown image id')
def _() -> None:
    change(lambda content: content['annotations'][2].update(image_id=99))


@data('Two annotations of one id', VERIFY, 'duplicate annotation id')
def _() -> None:
    change(lambda content: content['annotations'][2].update(id=1))


@data('A label beyond the classes', VERIFY, 'label out of range')
def _() -> None:
    make('mmseg')
    write(FOLDER / 'maps' / 'train' / '1.png', np.full((HEIGHT, WIDTH), 7, np.uint8))


@data('A segmentation map of another size', VERIFY, 'wrong segmentation map size')
def _() -> None:
    make('mmseg')
    write(FOLDER / 'maps' / 'train' / '2.png', np.zeros((WIDTH, HEIGHT), np.uint8))


@data('A segmentation map in colours', VERIFY, 'segmentation map')
def _() -> None:
    make('mmseg')
    write(FOLDER / 'maps' / 'train' / '0.png', draw(0))


@data('A folder more than there are classes', VERIFY, 'unusable dataset')
def _() -> None:
    make('mmpretrain')
    write(FOLDER / 'train' / 'thumbnails' / '0.jpg', draw(9))
