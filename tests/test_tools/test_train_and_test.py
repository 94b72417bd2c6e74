"""``tools/train.py``, ``tools/test.py`` and the contact sheet on the bundled scenes, as a user runs them."""

import json
import math
import pickle
import socket
from pathlib import Path

import cv2
import pytest

from ..helpers import ROOT, link_scenes, metrics

CONFIG = ROOT / 'configs' / 'mask_rcnn' / 'mask-rcnn_stvit-nano_fpn_scenes.py'
SHORT = ['train_dataloader.batch_size=4', 'default_hooks.logger.interval=1', 'param_scheduler.0.end=4']
SHORT += ['param_scheduler.1.T_max=10', 'param_scheduler.1.end=10']


def scalars(work_dir: Path) -> list[dict]:
    """Everything that was logged, newest run last, one dict a line."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope='module')
def trained(scenes, tool, tmp_path_factory):
    """Workspace and work dir of a detector trained for 10 epochs on 16 scenes, 40 iterations."""
    folder = link_scenes(tmp_path_factory.mktemp('trained'), scenes)
    options = [*SHORT, 'train_cfg.max_epochs=10', 'train_cfg.val_interval=10', 'default_hooks.checkpoint.interval=5']
    done = tool('train.py', CONFIG, '--work-dir', 'run', '--cfg-options', *options, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, folder / 'run'


def test_training_leaves_checkpoint_log_and_tensorboard_scalars(trained):
    _, run = trained
    assert Path((run / 'last_checkpoint').read_text()).name == 'epoch_10.pth'
    assert [p.name for p in run.glob('epoch_*.pth')] == ['epoch_10.pth']
    assert list(run.glob('*/vis_data/events.out.tfevents.*'))
    losses = [row['loss'] for row in scalars(run) if 'loss' in row]
    assert len(losses) == 40
    assert all(math.isfinite(loss) for loss in losses)


def test_every_head_learns(trained):
    """Forty iterations are enough to tell proposals, classes and masks from noise."""
    rows = [row for row in scalars(trained[1]) if 'loss' in row]
    for name, factor in (('loss_rpn_cls', 0.6), ('loss_cls', 0.7), ('loss_mask', 0.7)):
        first, last = (sum(row[name] for row in part) / len(part) for part in (rows[:4], rows[-8:]))
        assert last < factor * first, f'{name}: {first:.3f} -> {last:.3f}'


def test_resume_continues_where_training_stopped(trained, tool):
    folder, run = trained
    options = [*SHORT, 'train_cfg.max_epochs=11', 'train_cfg.val_interval=20']
    done = tool('train.py', CONFIG, '--work-dir', 'run', '--resume', '--cfg-options', *options, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'resumed epoch: 10, iter: 40' in done.stdout + done.stderr
    assert (run / 'epoch_11.pth').exists()


def test_testing_prints_dumps_and_paints(trained, tool, tmp_path):
    folder, run = trained
    checkpoint = next(run.glob('epoch_*.pth'))
    out, painted = tmp_path / 'predictions.pkl', tmp_path / 'painted'
    done = tool(
        'test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'test', '--out', out, '--show-dir', painted, cwd=folder
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics(done.stdout))
    # Written by the command above, so not a stranger's file.
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 6
    assert all('masks' in p['pred_instances'] for p in predictions)
    assert len(list(painted.rglob('*.jpg'))) == 6


@pytest.mark.long
def test_two_processes_train_and_give_the_metrics_of_one(trained, tool, tmp_path):
    folder, _ = trained
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = {'PORT': str(probe.getsockname()[1])}
    options = ['train_cfg.max_epochs=1', 'train_dataloader.batch_size=4', 'default_hooks.logger.interval=1']
    options += ['sync_bn=torch']  # as the COCO configs have it
    work_dir = tmp_path / 'dist'
    done = tool('dist_train.sh', CONFIG, 2, '--work-dir', work_dir, '--cfg-options', *options, cwd=folder, env=port)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [row['loss'] for row in scalars(work_dir) if 'loss' in row]
    assert len(losses) == 2  # 16 images, 2 processes, 4 images each
    assert all(math.isfinite(loss) for loss in losses)
    test = [CONFIG, work_dir / 'epoch_1.pth']
    single = tool('test.py', *test, '--work-dir', tmp_path / 'single', cwd=folder)
    double = tool('dist_test.sh', *test, 2, '--work-dir', tmp_path / 'double', cwd=folder, env=port)
    assert single.returncode == 0, single.stderr[-3000:]
    assert double.returncode == 0, double.stderr[-3000:]
    assert metrics(single.stdout)
    assert metrics(double.stdout) == metrics(single.stdout)


def test_contact_sheet_shows_truth_beside_prediction(trained, tool, tmp_path):
    folder, run = trained
    checkpoint = next(run.glob('epoch_*.pth'))
    sheet = tmp_path / 'sheet.png'
    args = ['--out', sheet, '--num', 4, '--columns', 2, '--side', 192, '--score-thr', 0.9, '--work-dir', tmp_path / 'w']
    done = tool('analysis_tools/contact_sheet.py', CONFIG, checkpoint, *args, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    picture = cv2.imread(str(sheet))
    assert picture.shape == (28 + 2 * 200, 2 * (2 * 192 + 8) - 8, 3)
    truth, photo = picture[28:220, :192], cv2.imread(str(folder / 'data/scenes/coco/val/000001.jpg'))
    # The photograph is there, and something is drawn on it.
    difference = abs(truth.astype(int) - photo).max(axis=2)
    assert (difference < 12).mean() > 0.3
    assert (difference > 40).mean() > 0.005
