"""A training that is killed, again and again, and resumed ends with the weights of one that never was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from ..helpers import ROOT, assert_equal, link_scenes

HERE = Path(__file__).parent
CONFIG = HERE / 'tiny_classifier.py'
SABOTAGE = """
custom_imports = dict(imports=['sabotage'])
custom_hooks = [dict(type='Sabotage')]
"""
ITERATIONS = """
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=9, val_interval=3)
train_dataloader = dict(num_workers=2, sampler=dict(type='InfiniteSampler'))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=3))
"""


@pytest.fixture(scope='module')
def folder(scenes, tmp_path_factory):
    """A folder with the scenes, and configs with the saboteur that train by epochs and by iterations."""
    folder = link_scenes(tmp_path_factory.mktemp('stop_and_go'), scenes)
    (folder / 'epochs.py').write_text(f"_base_ = '{CONFIG}'" + SABOTAGE)
    (folder / 'iterations.py').write_text("_base_ = './epochs.py'" + ITERATIONS)
    return folder


@pytest.fixture(scope='module')
def train(tool, folder):
    def run(config: str, work_dir: str, *args: str, die_at: str = '') -> subprocess.CompletedProcess[str]:
        env = {'PYTHONPATH': str(HERE), 'DIE_AT': die_at}
        return tool('train.py', config, '--work-dir', work_dir, *args, cwd=folder, env=env)

    return run


def state(path: Path) -> dict:
    """What a checkpoint says of the training: weights, optimizer and schedule, tensors by name."""
    checkpoint = torch.load(path, weights_only=False)
    tensors = {f'model.{name}': tensor for name, tensor in checkpoint['state_dict'].items()}
    for index, moments in checkpoint['optimizer']['state'].items():
        tensors |= {f'optimizer.{index}.{name}': tensor for name, tensor in moments.items()}
    for index, group in enumerate(checkpoint['optimizer']['param_groups']):
        tensors[f'lr.{index}'] = torch.tensor(group['lr'], dtype=torch.float64)
    return tensors


def assert_killed(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


@pytest.mark.long
def test_epochs(train, folder):
    """Killed at four points of one training; the last two in the same epoch."""
    done = train('epochs.py', 'whole')
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / 'epochs'
    # Six iterations an epoch. Before the first checkpoint: there is nothing to resume, the run begins again.
    assert_killed(train('epochs.py', 'epochs', die_at='train:4'))
    assert not (run / 'last_checkpoint').exists()
    # Halfway through an epoch.
    assert_killed(train('epochs.py', 'epochs', '--resume', die_at='train:9'))
    assert (run / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    # Halfway through the file of the next checkpoint: the one before is whole, and named.
    assert_killed(train('epochs.py', 'epochs', '--resume', die_at='write:2'))
    assert (run / 'checkpoint.unfinished').exists() and not (run / 'epoch_2.pth').exists()
    # In a validation, right after a checkpoint.
    assert_killed(train('epochs.py', 'epochs', '--resume', die_at='val:2'))
    assert [path.name for path in run.glob('*.pth')] == ['epoch_2.pth']
    done = train('epochs.py', 'epochs', '--resume')
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(state(run / 'epoch_3.pth'), state(folder / 'whole' / 'epoch_3.pth'))
    assert not list(run.glob('*.unfinished'))


@pytest.mark.long
def test_iterations_and_a_kill_from_outside(train, folder):
    """An endless sampler, two workers that run ahead, and a signal that comes when it comes."""
    done = train('iterations.py', 'whole_iterations')
    assert done.returncode == 0, done.stderr[-3000:]
    process = subprocess.Popen(
        [sys.executable, ROOT / 'tools' / 'train.py', 'iterations.py', '--work-dir', 'iterations'],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(HERE), 'DIE_AT': 'train:8'},  # at the latest
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    run = folder / 'iterations'
    while not (run / 'last_checkpoint').exists():
        assert process.poll() is None, 'the training ended before its first checkpoint'
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (run / 'iter_9.pth').exists()
    done = train('iterations.py', 'iterations', '--resume')
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(state(run / 'iter_9.pth'), state(folder / 'whole_iterations' / 'iter_9.pth'))
