"""Every family learns on the bundled scenes, through ``tools/train.py`` and ``tools/test.py``."""

from pathlib import Path

import pytest

from ..fork_server import fork
from ..helpers import ROOT, link_scenes, metrics

DETECTOR = ('coco/bbox_mAP', 'coco/segm_mAP')
MASK_RCNN = 'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes'
CASCADE = 'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes'
UPERNET = 'upernet/stvit-nano_upernet_scenes'
CLASSIFIER = 'imagenet/stvit-nano_scenes'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A working folder with 160 scenes for training and 20 others."""
    folder = tmp_path_factory.mktemp('learning')
    done = fork('dataset_converters/scenes.py', '--out-dir', 'scenes', '--train', 160, '--val', 20, cwd=folder)
    assert done.returncode == 0, done.stderr
    return link_scenes(folder, folder / 'scenes')


def epochs(number: int) -> list[str]:
    """One-cycle schedule of so many epochs, with a validation at the end."""
    keys = ('train_cfg.max_epochs', 'train_cfg.val_interval', 'param_scheduler.1.T_max', 'param_scheduler.1.end')
    return [f'{key}={number}' for key in keys]


def iterations(number: int) -> list[str]:
    keys = ('train_cfg.max_iters', 'train_cfg.val_interval', 'param_scheduler.1.T_max', 'param_scheduler.1.end')
    return [f'{key}={number}' for key in (*keys, 'default_hooks.checkpoint.interval')]


@pytest.mark.long
@pytest.mark.parametrize(
    ('config', 'options', 'floors'),
    [
        # Guessing is right once in five.
        (CLASSIFIER, epochs(8), {'accuracy/top1': 40.0}),
        # Untrained detectors find nothing.
        (MASK_RCNN, epochs(4), dict.fromkeys(DETECTOR, 0.03)),
        (CASCADE, epochs(4), dict.fromkeys(DETECTOR, 0.03)),
        # Calling everything background has a mean IoU of 15 and a mean accuracy of 17.
        (UPERNET, iterations(160), {'mIoU': 16.0, 'mAcc': 25.0}),
    ],
    ids=['classifier', 'mask_rcnn', 'cascade', 'upernet'],
)
def test_a_short_run_learns(config, options, floors, folder):
    path, run = ROOT / 'configs' / f'{config}.py', folder / Path(config).name
    options = [*options, 'param_scheduler.0.end=50', 'randomness.seed=0']
    done = fork('train.py', path, '--work-dir', run, '--cfg-options', *options, cwd=folder, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    done = fork('test.py', path, Path((run / 'last_checkpoint').read_text()), '--work-dir', run / 'test', cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    reached = metrics(done.stdout)
    assert all(reached[name] > floor for name, floor in floors.items()), reached


@pytest.mark.slow
@pytest.mark.parametrize(
    ('config', 'floors'),
    [
        (MASK_RCNN, dict.fromkeys(DETECTOR, 0.70)),
        (CASCADE, dict.fromkeys(DETECTOR, 0.65)),
        (UPERNET, {'mIoU': 35.0}),
        (CLASSIFIER, {'accuracy/top1': 80.0}),
    ],
    ids=['mask_rcnn', 'cascade', 'upernet', 'classifier'],
)
def test_a_whole_run_reaches_its_floor(config, floors, tool, tmp_path):
    """The README states these floors; a model with a broken part stays below."""
    done = tool('dataset_converters/scenes.py', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = ROOT / 'configs' / f'{config}.py'
    done = tool('train.py', path, '--work-dir', 'run', cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    done = tool('test.py', path, Path((tmp_path / 'run/last_checkpoint').read_text()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    reached = metrics(done.stdout)
    assert all(reached[name] >= floor for name, floor in floors.items()), reached
