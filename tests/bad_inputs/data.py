"""Data sets with faults in them: what ``verify_dataset.py`` finds, and what the tools refuse before they begin."""

from pathlib import Path

from ..test_datasets.tiny_data import images, make_config
from .case import TRAIN, case

VERIFY = 'tools/misc/verify_dataset.py mine.py --split train --num-workers 0'
FOLDER = Path('data/tiny')
ANNOTATIONS = FOLDER / 'train.json'
COCO = 'configs/mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco.py'
SCENES = 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'


def make(library: str) -> None:
    """Write a data set of four images per split, and a config for it."""
    make_config(library, FOLDER).dump('mine.py')


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


@case('half of an image', VERIFY, '1.jpg', 'unreadable image')
def _() -> None:
    make('mmpretrain')
    path = images('mmpretrain', FOLDER, 'train')[2]
    path.write_bytes(path.read_bytes()[:300])


@case('annotations that are no JSON', VERIFY, 'not valid JSON')
def _() -> None:
    make('mmdet')
    ANNOTATIONS.write_text(ANNOTATIONS.read_text()[:100])
