"""Configs that do not exist, are not Python, or ask for what does not exist."""

from pathlib import Path

from .case import CONFIG, TRAIN, case

MINE = 'tools/train.py mine.py'
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
case('a file of another kind', 'tools/train.py mine.txt', 'mine.txt is not a config file', '.py')(
    lambda: Path('mine.txt').write_text('Train it, please.')
)
case('a syntax error', MINE, 'mine.py', 'line', config="default_scope = 'mmdet'\nmodel = dict(\n")
case(
    'a config that raises an error',
    MINE,
    'mine.py',
    'learning_rate',
    config="default_scope = 'mmdet'\nlr = learning_rate * 2\n",
)
case('a missing base', MINE, 'mine.py', 'gone.py', config="_base_ = 'configs/gone.py'\n")
case(
    'a base that the package does not have', MINE, 'mine.py', 'gone.py', config="_base_ = 'mmstvit::imagenet/gone.py'\n"
)
case('another library', MINE, "default_scope='mmpose'", 'mmpretrain', config="default_scope = 'mmpose'\n")
case('no model', MINE, 'mine.py', 'model', '_base_', config="default_scope = 'mmpretrain'\n")
case('no data for training', MINE, 'train_dataloader', config=f"_base_ = '{CONFIG}'\ntrain_dataloader = None\n")
case(
    'no data for testing',
    'tools/test.py mine.py own.pth',
    'test_dataloader',
    config=f"_base_ = '{CONFIG}'\ntest_dataloader = None\n",
)
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
