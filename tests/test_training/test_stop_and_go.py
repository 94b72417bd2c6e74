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
ENDS = {'SIGKILL': -signal.SIGKILL, 'SIGINT': 130, 'SIGTERM': 143}  # return codes
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
        code = ENDS[die_by] if die_at else 0
        return fork('train.py', config, '--work-dir', work_dir, *args, cwd=folder, env=env, code=code, **kwargs)

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


@pytest.fixture(scope='module')
def whole(train, folder) -> dict:
    """The end of a run that nothing stops."""
    train('epochs.py', 'whole')
    return state(folder / 'whole' / 'epoch_3.pth')


@pytest.mark.long
def test_epochs(train, folder, whole):
    """Killed at four moments, the last two in the same epoch."""
    run = folder / 'epochs'
    # Before the first checkpoint: there is nothing to resume, the run begins again.
    train('epochs.py', 'epochs', die_at='train:2')
    assert not (run / 'last_checkpoint').exists()
    # In the middle of an epoch.
    train('epochs.py', 'epochs', '--resume', die_at='train:5')
    assert (run / 'last_checkpoint').read_text().endswith('epoch_1.pth')
    # Halfway through the file of the next checkpoint: the last complete one is named.
    train('epochs.py', 'epochs', '--resume', die_at='write:2')
    assert (run / 'checkpoint.unfinished').exists() and not (run / 'epoch_2.pth').exists()
    # In a validation, after the checkpoint.
    train('epochs.py', 'epochs', '--resume', die_at='val:2')
    assert [path.name for path in run.glob('*.pth')] == ['epoch_2.pth']
    train('epochs.py', 'epochs', '--resume')
    assert_equal(state(run / 'epoch_3.pth'), whole)
    assert not list(run.glob('*.unfinished'))


@pytest.mark.long
def test_interrupts(train, folder, whole):
    """Ctrl+C inside an epoch, SIGTERM at its end, Ctrl+C in a validation: one line, and the same weights at the end."""
    run = folder / 'interrupted'
    for resume, point, by, iterations, checkpoint in (
        ((), 'train:2', 'SIGINT', 2, 'interrupted.pth'),
        (('--resume',), 'train:3', 'SIGTERM', 3, 'interrupted.pth'),
        (('--resume',), 'train:5', 'SIGTERM', 5, 'interrupted.pth'),
        (('--resume',), 'val:2', 'SIGINT', 6, 'epoch_2.pth'),
    ):
        done = train('epochs.py', 'interrupted', *resume, die_at=point, die_by=by)
        last = run / checkpoint
        said = f'interrupted. {iterations} iterations are done and saved in {last}. To go on: --work-dir {run} --resume'
        assert done.stderr.splitlines()[-1] == said
        assert (run / 'last_checkpoint').read_text() == str(last) and 'Traceback' not in done.stderr
    train('epochs.py', 'interrupted', '--resume')
    assert_equal(state(run / 'epoch_3.pth'), whole)


@pytest.mark.long
def test_iterations_and_a_kill_from_outside(train, folder):
    """With an endless sampler, two workers that run ahead, and a signal at any time after the first checkpoint."""
    train('iterations.py', 'whole_iterations')
    run = folder / 'iterations'
    train('iterations.py', 'iterations', die_at='train:5', kill_when=run / 'last_checkpoint')
    assert (run / 'iter_2.pth').exists() and not (run / 'iter_5.pth').exists()
    train('iterations.py', 'iterations', '--resume')
    assert_equal(state(run / 'iter_5.pth'), state(folder / 'whole_iterations' / 'iter_5.pth'))
