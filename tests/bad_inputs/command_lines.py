"""Options that do not exist, do not go together, or cannot be carried out."""

import json
from pathlib import Path

from ..test_datasets.tiny_data import coco_content, make_config, make_mmdet
from .case import CONFIG, TEST, TRAIN, case, save, weights

SEGMENTOR = 'configs/upernet/stvit-nano_upernet_scenes.py'
DETECTOR = 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'
SCENES = ('circle', 'square', 'triangle', 'star', 'digit')


def checkpoint() -> None:
    """Write weights of CONFIG's model."""
    save(dict(state_dict=weights()), 'own.pth')


case('nothing to resume', f'{TRAIN} --resume', 'work_dirs/stvit-nano_scenes', '--work-dir')


@case('a damaged last checkpoint', f'{TRAIN} --resume', 'stvit-nano_scenes/epoch_1.pth', 'damaged', 'new run')
def _() -> None:
    folder = Path('work_dirs/stvit-nano_scenes')
    folder.mkdir(parents=True)
    (folder / 'epoch_1.pth').write_bytes(b'PK\x03\x04')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))


case(
    'an unknown precision', f'{TRAIN} --amp --cfg-options optim_wrapper.dtype=float64', 'optim_wrapper.dtype', 'float64'
)
case('a learning rate without its batch', f'{TRAIN} --auto-scale-lr', 'auto_scale_lr.base_batch_size=')
case('Slurm without GPUs', f'{TRAIN} --launcher slurm', '--launcher slurm', 'dist_train.sh')
case('predictions into a file of another kind', f'{TEST} own.pth --out predictions.txt', 'predictions.txt', '.pkl')(
    checkpoint
)
case('pictures from several processes', f'{TEST} own.pth --show-dir out --launcher pytorch', '--show-dir')(checkpoint)
case(
    'test-time augmentation that nothing defines',
    f'tools/test.py {SEGMENTOR} own.pth --tta --cfg-options tta_model=None',
    '--tta',
    'tta_model',
)(checkpoint)


@case(
    'test-time augmentation of another detector',
    f'tools/test.py {DETECTOR} own.pth --tta --cfg-options tta_model.type=mmstvit.InstanceSegTTAModel '
    'model.roi_head.mask_head=None',
    'DetTTAModel',
)
def _() -> None:
    folder = Path('data/scenes/coco')
    make_mmdet(folder, 'val', 0)
    (folder / 'annotations').mkdir()
    (folder / 'annotations' / 'instances_val.json').write_text(json.dumps(coco_content(SCENES)))
    checkpoint()


case('a negative number of processes', 'tools/misc/verify_dataset.py mine.py --num-workers -1', '-1', code=2)
case('a report into a missing folder', 'tools/misc/verify_dataset.py mine.py --out reports/a.json', 'reports/a.json')


case('a split that the config does not have', 'tools/misc/verify_dataset.py mine.py --split test', 'test_dataloader')(
    lambda: make_config('mmpretrain', Path('data/tiny')).dump('mine.py')
)
case('an image without pixels', f'tools/analysis_tools/get_flops.py {CONFIG} --shape 0 224', '--shape', '0', code=2)
case('a negative depth', f'tools/analysis_tools/get_flops.py {CONFIG} --depth -1', '--depth', '-1', code=2)
for score, words in {'30': ('30', 'between 0 and 1', 'Did you mean 0.3?'), '-1': ('-1',), 'nan': ('nan',)}.items():
    case(f'a score of {score}', f'tools/predict.py own.pth photos --score {score}', *words)
case(
    'a score in percent for pictures',
    f'tools/analysis_tools/contact_sheet.py {DETECTOR} own.pth --out sheet.png --score-thr 50',
    'Did you mean 0.5?',
)


case(
    'ratios to an entry that is not measured',
    'tools/analysis_tools/benchmark.py stvit-nano --baseline naive-nano',
    '--baseline',
    "'naive-nano'",
    code=2,
)


@case(
    'scenes into a folder with other files',
    'tools/dataset_converters/scenes.py --out-dir photos --force',
    'photos',
    code=2,
)
def _() -> None:
    Path('photos').mkdir()
    Path('photos/holiday.jpg').write_text('precious')
