"""Data sets that are not there: the tools refuse them before they begin."""

from pathlib import Path

from .case import TRAIN, case

COCO = 'configs/mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco.py'
SCENES = 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'

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
