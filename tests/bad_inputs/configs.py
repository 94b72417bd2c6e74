"""Configs that do not exist, are not Python, or ask for what does not exist."""

from pathlib import Path

from .case import CONFIG, TRAIN, case


def write(text: str, name: str = 'mine.py') -> None:
    """Write a config into the working directory."""
    Path(name).write_text(text)


case(
    'a misspelt name',
    'tools/train.py configs/imagenet/stvit-nano_scene.py',
    'stvit-nano_scene.py',
    'Did you mean configs/imagenet/stvit-nano_scenes.py?',
)
case(
    'a missing data set',
    'tools/train.py configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py',
    'data/scenes/coco/',
    'train_dataloader.dataset.data_root',
    'tools/dataset_converters/scenes.py',
)
case('a package without configs', 'tools/train.py mmpose::body/a.py', "'mmpose'", 'mmstvit::')
case('a folder of configs', 'tools/train.py configs/imagenet', 'configs/imagenet is not a config file')


@case('a file of another kind', 'tools/train.py mine.txt', 'mine.txt is not a config file', '.py')
def _() -> None:
    write('Train it, please.', 'mine.txt')


@case('a syntax error', 'tools/train.py mine.py', 'mine.py', 'line')
def _() -> None:
    write("default_scope = 'mmdet'\nmodel = dict(\n")


@case('a config that raises an error', 'tools/train.py mine.py', 'mine.py', 'learning_rate')
def _() -> None:
    write("default_scope = 'mmdet'\nlr = learning_rate * 2\n")


@case('a missing base', 'tools/train.py mine.py', 'mine.py', 'gone.py')
def _() -> None:
    write("_base_ = 'configs/gone.py'\n")


@case('a base that the package does not have', 'tools/train.py mine.py', 'mine.py', 'gone.py')
def _() -> None:
    write("_base_ = 'mmstvit::imagenet/gone.py'\n")


@case('another library', 'tools/train.py mine.py', "default_scope='mmpose'", 'mmpretrain')
def _() -> None:
    write("default_scope = 'mmpose'\n")


@case('no model', 'tools/train.py mine.py', 'mine.py', 'model', '_base_')
def _() -> None:
    write("default_scope = 'mmpretrain'\n")


@case('no data for training', 'tools/train.py mine.py', 'train_dataloader')
def _() -> None:
    write(f"_base_ = '{CONFIG}'\ntrain_dataloader = None\n")


@case('no data for testing', 'tools/test.py mine.py own.pth', 'test_dataloader')
def _() -> None:
    write(f"_base_ = '{CONFIG}'\ntest_dataloader = None\n")


case(
    'iterations in a config by epochs',
    f'{TRAIN} --cfg-options train_cfg.type=IterBasedTrainLoop train_cfg.max_iters=20',
    'train_cfg.max_epochs',
    'train_cfg.max_epochs=1',
    '_delete_=True',
)
case('an unknown architecture', f'{TRAIN} --cfg-options model.backbone.arch=smal', "'smal'", "'small'")
case('a misspelt setting', f'{TRAIN} --cfg-options model.backbone.drop_path_rat=0.1', 'drop_path_rat')
case('an unknown model', f'{TRAIN} --cfg-options model.backbone.type=mmstvit.STVit', 'STVit')
case(
    'deploy form, to be trained',
    f'{TRAIN} --cfg-options model.backbone.deploy=True',
    'model.backbone.deploy=True',
    '--cfg-options model.backbone.deploy=False',
)
case(
    'an unknown value for unreadable files',
    f'{TRAIN} --cfg-options data_faults.unreadable=ignore',
    'data_faults.unreadable',
    "'ignore'",
    "'skip'",
)
case('a setting inside a value', f'{TRAIN} --cfg-options default_scope.name=mmdet', '--cfg-options', 'default_scope')
