"""Every family learns on the bundled scenes; that heads of a detector do is in test_train_and_test.py, too."""

from pathlib import Path

import pytest

from ..fork_server import fork
from ..helpers import NANO, config_path, link_scenes, metrics, scalars

DETECTOR = ('coco/bbox_mAP', 'coco/segm_mAP')
MASK_RCNN, UPERNET, CLASSIFIER = NANO.values()
CASCADE = 'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes'


SIDE = 96  # of a scene; half of the side in the configs


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A working folder with 160 small scenes for training and 20 others."""
    folder = tmp_path_factory.mktemp('learning')
    sizes = ['--train', 160, '--val', 20, '--size', SIDE]
    fork('dataset_converters/scenes.py', '--out-dir', 'scenes', *sizes, cwd=folder)
    return link_scenes(folder, folder / 'scenes')


def length(unit: str, number: int) -> list[str]:
    """One-cycle schedule of so many epochs or iterations, with a validation at the end."""
    keys = (f'train_cfg.max_{unit}', 'train_cfg.val_interval', 'param_scheduler.1.T_max', 'param_scheduler.1.end')
    return [f'{key}={number}' for key in (*keys, 'default_hooks.checkpoint.interval')]


@pytest.mark.long
@pytest.mark.parametrize(
    ('config', 'options', 'floors'),
    [
        # Guessing is right once in five.
        (CLASSIFIER, length('epochs', 6), {'accuracy/top1': 40.0}),
        # Calling everything background has a mean IoU of 15 and a mean accuracy of 17.
        (UPERNET, length('iters', 160), {'mIoU': 16.0, 'mAcc': 25.0}),
    ],
    ids=['classifier', 'upernet'],
)
def test_a_short_run_learns(config, options, floors, folder):
    path, run = config_path(config), folder / Path(config).name
    options = [*options, 'param_scheduler.0.end=20', 'randomness.seed=0']
    if config == UPERNET:
        options.append(f'model.data_preprocessor.size=({SIDE},{SIDE})')
    fork('train.py', path, '--work-dir', run, '--cfg-options', *options, cwd=folder, timeout=900)
    reached = scalars(run)[-1]
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
    tool('dataset_converters/scenes.py', cwd=tmp_path)
    path = config_path(config)
    tool('train.py', path, '--work-dir', 'run', cwd=tmp_path, timeout=3000)
    done = tool('test.py', path, Path((tmp_path / 'run/last_checkpoint').read_text()), cwd=tmp_path)
    reached = metrics(done.stdout)
    assert all(reached[name] >= floor for name, floor in floors.items()), reached
