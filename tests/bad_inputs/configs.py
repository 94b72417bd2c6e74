"""Configs that are not there, not Python, or ask for what does not exist."""

import functools
from pathlib import Path

from .case import CONFIG, TRAIN, case

config = functools.partial(case, 'Configs')


def write(text: str, name: str = 'mine.py') -> None:
    Path(name).write_text(text)


config('A name with a slip', 'tools/train.py configs/imagenet/stvit-nano_scene.py', 'Did you mean')
config('A folder of configs', 'tools/train.py configs/imagenet', 'is no config')


@config('A file of another kind', 'tools/train.py mine.txt', 'mine.txt')
def _() -> None:
    write('Train it, please.', 'mine.txt')


@config('A syntax error', 'tools/train.py mine.py', 'mine.py')
def _() -> None:
    write("default_scope = 'mmdet'\nmodel = dict(\n")


@config('A config that raises an error', 'tools/train.py mine.py', 'learning_rate')
def _() -> None:
    write("default_scope = 'mmdet'\nlr = learning_rate * 2\n")


@config('A base that is not there', 'tools/train.py mine.py', 'gone.py')
def _() -> None:
    write("_base_ = 'configs/gone.py'\n")


@config('A base of a package that is not installed', 'tools/train.py mine.py', 'mmpose')
def _() -> None:
    write("_base_ = 'mmpose::body_2d_keypoint/a.py'\n")


@config('A base that the package does not have', 'tools/train.py mine.py', 'gone.py')
def _() -> None:
    write("_base_ = 'mmstvit::imagenet/gone.py'\n")


@config('Another library', 'tools/train.py mine.py', "default_scope='mmpose'")
def _() -> None:
    write("default_scope = 'mmpose'\n")


@config('No model', 'tools/train.py mine.py', 'has no model')
def _() -> None:
    write("default_scope = 'mmpretrain'\n")


@config('No data for training', 'tools/train.py mine.py', 'no train_dataloader')
def _() -> None:
    write(f"_base_ = '{CONFIG}'\ntrain_dataloader = None\n")


@config('No data for testing', 'tools/test.py mine.py own.pth', 'no test_dataloader')
def _() -> None:
    write(f"_base_ = '{CONFIG}'\ntest_dataloader = None\n")


config('An architecture that does not exist', f'{TRAIN} --cfg-options model.backbone.arch=smal', "'smal'")
config('A setting with a slip', f'{TRAIN} --cfg-options model.backbone.drop_path_rat=0.1', 'drop_path_rat')
config('A model that does not exist', f'{TRAIN} --cfg-options model.backbone.type=mmstvit.STVit', 'STVit')
config('A stage that does not exist', f'{TRAIN} --cfg-options model.backbone.out_indices="[0,7]"', '7')
config('A rate out of range', f'{TRAIN} --cfg-options model.backbone.drop_path_rate=1.5', '1.5')
config('The inference form, to be trained', f'{TRAIN} --cfg-options model.backbone.deploy=True', 'deploy=False')
config(
    'Another word for what becomes of unreadable images',
    f'{TRAIN} --cfg-options data_faults.unreadable=ignore',
    "'ignore'",
)
config(
    'Sharding in one process',
    f'{TRAIN} --cfg-options strategy.type=mmstvit.FSDPStrategy',
    'dist_train.sh',
)
config(
    'A setting inside something that has no settings', f'{TRAIN} --cfg-options default_scope.name=mmdet', 'does not fit'
)
