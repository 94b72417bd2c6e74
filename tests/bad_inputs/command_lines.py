"""Options that do not exist, do not go together, or ask for what cannot be."""

import functools
from pathlib import Path

from .case import CONFIG, TEST, TRAIN, case, save, weights
from .data import make

command_line = functools.partial(case, 'Command lines')
SEGMENTOR = 'configs/upernet/stvit-nano_upernet_scenes.py'


def checkpoint() -> None:
    save(dict(state_dict=weights()), 'own.pth')


command_line('No config', 'tools/train.py', 'config', 2)
command_line('No checkpoint', TEST, 'checkpoint', 2)
command_line('An option with a slip', f'{TRAIN} --work-dri work_dirs/a', '--work-dri', 2)
command_line('A setting without a value', f'{TRAIN} --cfg-options model.backbone.arch', 'arch', 2)
command_line('Nothing to resume', f'{TRAIN} --resume', 'nothing to resume')


@command_line('Resuming where the last checkpoint is damaged', f'{TRAIN} --resume', 'damaged')
def _() -> None:
    folder = Path('work_dirs/stvit-nano_scenes')
    folder.mkdir(parents=True)
    (folder / 'epoch_1.pth').write_bytes(b'PK\x03\x04')
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_1.pth'))


command_line('Mixed precision that is none', f'{TRAIN} --amp --cfg-options optim_wrapper.dtype=float64', 'float64')
command_line('A learning rate scaled from nothing', f'{TRAIN} --auto-scale-lr', 'base_batch_size')
command_line('Slurm without GPUs', f'{TRAIN} --launcher slurm', 'needs GPUs')
command_line('Predictions into a file of another kind', f'{TEST} own.pth --out predictions.txt', '.pkl')(checkpoint)


command_line(
    'Test-time augmentation that nothing defines',
    f'tools/test.py {SEGMENTOR} own.pth --tta --cfg-options tta_model=None',
    '--tta needs',
)(checkpoint)
command_line('A number of processes below none', 'tools/misc/verify_dataset.py mine.py --num-workers -1', '-1')
command_line(
    'A report into a folder that is not there',
    'tools/misc/verify_dataset.py mine.py --out reports/a.json',
    'reports/a.json',
)


@command_line('A split that the config does not have', 'tools/misc/verify_dataset.py mine.py --split test', 'test')
def _() -> None:
    make('mmpretrain')


command_line('An image without pixels', f'tools/analysis_tools/get_flops.py {CONFIG} --shape 0 224', '--shape')
command_line('A backbone that is not known', 'tools/analysis_tools/benchmark.py stvit-smal', 'stvit-smal')
command_line('A device that does not exist', 'tools/analysis_tools/benchmark.py stvit-nano --device gpu', '--device')
command_line(
    'Pictures of a model that is no detector',
    f'tools/analysis_tools/contact_sheet.py {CONFIG} own.pth --out sheet.png',
    'not a detector',
)(checkpoint)
command_line(
    'A confusion matrix of no segmentor',
    f'tools/analysis_tools/confusion_matrix.py {CONFIG} predictions matrix',
    'not a segmentor',
)


@command_line(
    'Scenes over what somebody else keeps there', 'tools/dataset_converters/scenes.py --out-dir photos', 'photos', 2
)
def _() -> None:
    Path('photos').mkdir()
    Path('photos/holiday.jpg').write_text('precious')
