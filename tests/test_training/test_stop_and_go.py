"""A run with EMAHook that is killed and resumed ends with the same weights, averages and log as one that is not."""

import signal
import subprocess
from pathlib import Path

import pytest
import torch

from ..fork_server import fork
from ..helpers import assert_equal, link_scenes

HERE = Path(__file__).parent
CONFIG = HERE / 'tiny_classifier.py'
# Three iterations per epoch.
SABOTAGE = """
custom_imports = dict(imports=['sabotage'])
custom_hooks = [dict(type='Sabotage'), dict(type='EMAHook', momentum=0.5)]
train_dataloader = dict(dataset=dict(indices=24))
"""
ITERATIONS = """
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=5, val_interval=9)
train_dataloader = dict(num_workers=2, sampler=dict(type='InfiniteSampler'))
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=2))
"""


@pytest.fixture(scope='module')
def folder(scenes, tmp_path_factory):
    """A folder with the scenes, and configs that can be killed, by epochs and by iterations."""
    folder = link_scenes(tmp_path_factory.mktemp('stop_and_go'), scenes)
    (folder / 'epochs.py').write_text(f"_base_ = '{CONFIG}'" + SABOTAGE)
    (folder / 'iterations.py').write_text("_base_ = './epochs.py'" + ITERATIONS)
    return folder


@pytest.fixture(scope='module')
def train(folder):
    def run(
        config: str, work_dir: str, *args: str, die_at: str = '', die_by: str = 'SIGKILL', **kwargs
    ) -> subprocess.CompletedProcess[str]:
        env = {'PYTHONPATH': str(HERE), 'DIE_AT': die_at, 'DIE_BY': die_by}
        return fork('train.py', config, '--work-dir', work_dir, *args, cwd=folder, env=env, **kwargs)

    return run


def state(path: Path) -> dict:
    """Read weights, their average, optimizer state, learning rates and the logged losses, as tensors by name."""
    checkpoint = torch.load(path, weights_only=False)
    tensors = {f'model.{name}': tensor for name, tensor in checkpoint['state_dict'].items()}
    tensors |= {f'last.{name}': tensor for name, tensor in checkpoint['ema_state_dict'].items()}
    tensors['loss'] = torch.tensor(checkpoint['message_hub']['log_scalars']['train/loss'].data[0])
    for index, moments in checkpoint['optimizer']['state'].items():
        tensors |= {f'optimizer.{index}.{name}': tensor for name, tensor in moments.items()}
    for index, group in enumerate(checkpoint['optimizer']['param_groups']):
        tensors[f'lr.{index}'] = torch.tensor(group['lr'], dtype=torch.float64)
    return tensors


def assert_killed(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]


@pytest.mark.long
def test_epochs(train, folder):
    """Killed at four moments, the last two in the same epoch."""
    done = train('epochs.py', 'whole')
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / 'epochs'
    # Before the first checkpoint: there is nothing to resume, the run begins again.
    assert_killed(train('epochs.py', 'epochs', die_at='train:2'))
    assert not (run / 'last_checkpoint').exists()
    # In the middle of an epoch.
    assert_killed(train('epochs.py', 'epochs', '--resume', die_at='train:5'))
    assert (run / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    # Halfway through the file of the next checkpoint: the last complete one is named.
    assert_killed(train('epochs.py', 'epochs', '--resume', die_at='write:2'))
    assert (run / 'checkpoint.unfinished').exists() and not (run / 'epoch_2.pth').exists()
    # In a validation, after the checkpoint.
    assert_killed(train('epochs.py', 'epochs', '--resume', die_at='val:2'))
    assert [path.name for path in run.glob('*.pth')] == ['epoch_2.pth']
    done = train('epochs.py', 'epochs', '--resume')
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(state(run / 'epoch_3.pth'), state(folder / 'whole' / 'epoch_3.pth'))
    assert not list(run.glob('*.unfinished'))


@pytest.mark.long
def test_interrupts(train, folder):
    """Ctrl+C inside an epoch, SIGTERM at its end, Ctrl+C in a validation: one line, and the same weights at the end."""
    if not (folder / 'whole').exists():
        assert train('epochs.py', 'whole').returncode == 0
    run = folder / 'interrupted'
    for resume, point, by, iterations, checkpoint in (
        ((), 'train:2', 'SIGINT', 2, 'interrupted.pth'),
        (('--resume',), 'train:3', 'SIGTERM', 3, 'interrupted.pth'),
        (('--resume',), 'train:5', 'SIGTERM', 5, 'interrupted.pth'),
        (('--resume',), 'val:2', 'SIGINT', 6, 'epoch_2.pth'),
    ):
        done = train('epochs.py', 'interrupted', *resume, die_at=point, die_by=by)
        assert done.returncode == {'SIGINT': 130, 'SIGTERM': 143}[by], done.stderr[-3000:]
        last = run / checkpoint
        said = f'interrupted. {iterations} iterations are done and saved in {last}. To go on: --work-dir {run} --resume'
        assert done.stderr.splitlines()[-1] == said
        assert (run / 'last_checkpoint').read_text() == str(last) and 'Traceback' not in done.stderr
    done = train('epochs.py', 'interrupted', '--resume')
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(state(run / 'epoch_3.pth'), state(folder / 'whole' / 'epoch_3.pth'))


@pytest.mark.long
def test_iterations_and_a_kill_from_outside(train, folder):
    """With an endless sampler, two workers that run ahead, and a signal at any time after the first checkpoint."""
    done = train('iterations.py', 'whole_iterations')
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / 'iterations'
    assert_killed(train('iterations.py', 'iterations', die_at='train:5', kill_when=run / 'last_checkpoint'))
    assert (run / 'iter_2.pth').exists() and not (run / 'iter_5.pth').exists()
    done = train('iterations.py', 'iterations', '--resume')
    assert done.returncode == 0, done.stderr[-3000:]
    assert_equal(state(run / 'iter_5.pth'), state(folder / 'whole_iterations' / 'iter_5.pth'))
