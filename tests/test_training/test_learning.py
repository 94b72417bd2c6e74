"""Every family learns: shortened trainings beat an untrained model, whole ones reach their floors.

All through ``tools/train.py`` and ``tools/test.py``, on the held-out split of the bundled scenes.
"""

from pathlib import Path

import pytest

from ..helpers import ROOT, link_scenes, metrics, save_untrained

DETECTOR = ('coco/bbox_mAP', 'coco/segm_mAP')
MASK_RCNN = 'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes'
CASCADE = 'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes'
UPERNET = 'upernet/stvit-nano_upernet_scenes'
CLASSIFIER = 'imagenet/stvit-nano_scenes'


@pytest.fixture(scope='module')
def folder(tool, tmp_path_factory):
    """A working folder with 320 scenes for training and 40 others."""
    folder = tmp_path_factory.mktemp('learning')
    done = tool('dataset_converters/scenes.py', '--out-dir', folder / 'scenes', '--train', 320, '--val', 40)
    assert done.returncode == 0, done.stderr
    return link_scenes(folder, folder / 'scenes')


def epochs(number: int) -> list[str]:
    """One-cycle schedule of so many epochs."""
    return [f'{key}={number}' for key in ('train_cfg.max_epochs', 'param_scheduler.1.T_max', 'param_scheduler.1.end')]


def iterations(number: int) -> list[str]:
    keys = ('train_cfg.max_iters', 'train_cfg.val_interval', 'param_scheduler.1.T_max', 'param_scheduler.1.end')
    return [f'{key}={number}' for key in (*keys, 'default_hooks.checkpoint.interval')]


@pytest.mark.long
@pytest.mark.parametrize(
    ('config', 'options', 'margins'),
    [
        # Guessing is right once in five.
        (CLASSIFIER, epochs(8), {'accuracy/top1': 20.0}),
        (MASK_RCNN, [*epochs(3), 'train_cfg.val_interval=3'], {'coco/bbox_mAP': 0.03, 'coco/segm_mAP': 0.03}),
        (CASCADE, [*epochs(3), 'train_cfg.val_interval=3'], {'coco/bbox_mAP': 0.03, 'coco/segm_mAP': 0.03}),
        # An untrained one has a mean accuracy near 15; calling everything background has one of 17.
        (UPERNET, iterations(240), {'mIoU': 5.0, 'mAcc': 8.0}),
    ],
    ids=['classifier', 'mask_rcnn', 'cascade', 'upernet'],
)
def test_a_short_training_beats_an_untrained_model(config, options, margins, folder, tool):
    path, run = ROOT / 'configs' / f'{config}.py', folder / Path(config).name
    options = [*options, 'param_scheduler.0.end=50']
    done = tool('train.py', path, '--work-dir', run, '--cfg-options', *options, cwd=folder, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    save_untrained(config, run / 'untrained.pth')
    reached = {}
    for checkpoint in (Path((run / 'last_checkpoint').read_text()), run / 'untrained.pth'):
        done = tool('test.py', path, checkpoint, '--work-dir', run / 'test', cwd=folder)
        assert done.returncode == 0, done.stderr[-3000:]
        reached[checkpoint.stem] = metrics(done.stdout)
    trained, untrained = reached.values()
    for name, margin in margins.items():
        # Nothing found at all is reported as -1 or not reported.
        assert trained[name] > max(untrained.get(name, 0.0), 0.0) + margin, reached


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
def test_a_whole_training_reaches_its_floor(config, floors, tool, tmp_path):
    """What the README states; a model with a broken part stays below."""
    done = tool('dataset_converters/scenes.py', cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    path = ROOT / 'configs' / f'{config}.py'
    done = tool('train.py', path, '--work-dir', 'run', cwd=tmp_path, timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    done = tool('test.py', path, Path((tmp_path / 'run/last_checkpoint').read_text()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    reached = metrics(done.stdout)
    assert all(reached[name] >= floor for name, floor in floors.items()), reached
