"""``tools/train.py``, ``tools/test.py`` and the contact sheet on the bundled scenes."""

import math
import pickle
from pathlib import Path

import cv2
import pytest

from ..fork_server import fork
from ..helpers import NANO, config_path, free_port, link_scenes, metrics, scalars
from ..in_process import run_main

CONFIG = config_path(NANO['mmdet'])
SMALL = [
    f'{split}_dataloader.dataset.pipeline.{i}.scale=(96,96)' for split, i in (('train', 2), ('val', 1), ('test', 1))
]
SHORT = [*SMALL, 'train_dataloader.batch_size=4', 'default_hooks.logger.interval=1', 'param_scheduler.0.end=4']
SHORT += ['param_scheduler.1.T_max=8', 'param_scheduler.1.end=8', 'train_cfg.max_epochs=8', 'train_cfg.val_interval=8']


@pytest.fixture(scope='module')
def trained(scenes, tmp_path_factory):
    """Train a detector for 8 epochs on 16 scenes, 32 iterations; returns the working directory and the work dir."""
    folder = link_scenes(tmp_path_factory.mktemp('trained'), scenes)
    options = [*SHORT, 'default_hooks.checkpoint.interval=4']
    run_main('train.py', CONFIG, '--work-dir', 'run', '--cfg-options', *options, cwd=folder)
    return folder, folder / 'run'


def test_training_leaves_checkpoint_log_and_tensorboard_scalars(trained):
    _, run = trained
    assert Path((run / 'last_checkpoint').read_text()).name == 'epoch_8.pth'
    assert [p.name for p in run.glob('epoch_*.pth')] == ['epoch_8.pth']
    assert list(run.glob('*/vis_data/events.out.tfevents.*'))
    losses = [row['loss'] for row in scalars(run) if 'loss' in row]
    assert len(losses) == 32
    assert all(math.isfinite(loss) for loss in losses)


def test_the_terminal_is_short_and_the_log_file_complete(workspace, capfd):
    options = ['train_dataloader.dataset.indices=32', 'default_hooks.logger.interval=1', 'train_cfg.max_epochs=1']
    config = config_path(NANO['mmpretrain'])
    run_main(
        'train.py', config, '--work-dir', 'run', '--cfg-options', *options, 'train_cfg.val_interval=2', cwd=workspace
    )
    before = ''.join(capfd.readouterr()).partition('Epoch(train)')[0]
    (log,) = (workspace / 'run').glob('*/*.log')
    assert len(before.splitlines()) <= 20
    for text in ('System environment', 'Config:', 'Hooks will be executed', 'paramwise_options'):
        assert text not in before and text in log.read_text()
    for text in ('model: ImageClassifier with STViT', 'length: 1 epochs', 'weight_decay: 0.05 for', str(log)):
        assert text in before


def test_every_head_learns(trained):
    """So many iterations are enough to tell proposals, classes and masks from noise."""
    rows = [row for row in scalars(trained[1]) if 'loss' in row]
    for name in ('loss_rpn_cls', 'loss_cls', 'loss_mask'):
        first, last = (sum(row[name] for row in part) / len(part) for part in (rows[:4], rows[-8:]))
        assert last < 0.7 * first, f'{name}: {first:.3f} -> {last:.3f}'


def test_testing_prints_dumps_and_paints(trained, capsys, tmp_path):
    folder, run = trained
    out, painted = tmp_path / 'predictions.pkl', tmp_path / 'painted'
    options = ['--work-dir', tmp_path / 'test', '--out', out, '--show-dir', painted, '--cfg-options', *SMALL]
    run_main('test.py', CONFIG, next(run.glob('epoch_*.pth')), *options, cwd=folder)
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics(capsys.readouterr().out))
    # Written by the command above, so not a stranger's file.
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 6
    assert all('masks' in p['pred_instances'] for p in predictions)
    assert sorted(path.relative_to(painted) for path in painted.rglob('*.jpg')) == [
        Path(f'val/{i:06}.jpg') for i in range(1, 7)
    ]


@pytest.mark.long
def test_two_processes_train_and_give_the_metrics_of_one(workspace, tool, tmp_path, capsys):
    port = free_port()
    options = [*SMALL, 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=4', 'default_hooks.logger.interval=1']
    options += ['sync_bn=torch', 'train_cfg.val_begin=9']  # as the COCO configs have it; validated below
    work_dir = tmp_path / 'dist'
    tool('dist_train.sh', CONFIG, 2, '--work-dir', work_dir, '--cfg-options', *options, cwd=workspace, env=port)
    losses = [row['loss'] for row in scalars(work_dir) if 'loss' in row]
    assert len(losses) == 2  # 16 images, 2 processes, 4 images each
    assert all(math.isfinite(loss) for loss in losses)
    checkpoint, size = work_dir / 'epoch_1.pth', ['--cfg-options', *SMALL]
    run_main('test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'single', *size, cwd=workspace)
    single = capsys.readouterr().out
    args = [CONFIG, checkpoint, '--work-dir', tmp_path / 'double', *size]
    double = fork('test.py', *args, cwd=workspace, processes=2)
    assert metrics(single)
    assert metrics(double.stdout) == metrics(single)


def test_contact_sheet_shows_truth_beside_prediction(trained, tmp_path):
    folder, run = trained
    sheet = tmp_path / 'sheet.png'
    args = ['--out', sheet, '--num', 4, '--columns', 2, '--side', 192, '--score-thr', 0.9, '--work-dir', tmp_path / 'w']
    run_main('analysis_tools/contact_sheet.py', CONFIG, next(run.glob('epoch_*.pth')), *args, cwd=folder)
    picture = cv2.imread(str(sheet))
    assert picture.shape == (56 + 2 * 202, 4 * 202 + 10, 3)  # legend and titles, then two rows of two pairs
    truth, photo = picture[56:248, 10:202], cv2.imread(str(folder / 'data/scenes/coco/val/000001.jpg'))
    # The photograph is there, and something is drawn on it.
    difference = abs(truth.astype(int) - photo).max(axis=2)
    assert (difference < 12).mean() > 0.3
    assert (difference > 40).mean() > 0.005
