"""The same global batch gives the same training run, in one process or several, at once or accumulated."""

from pathlib import Path

import pytest
import torch

from ..fork_server import fork
from ..helpers import assert_near, free_port, link_scenes, metrics

HERE = Path(__file__).parent
# Evaluation mode, because BatchNorm depends on the batch of a process and drop path on the process. SGD, because Adam
# divides a gradient by its own size, which enlarges rounding errors. Two iterations per epoch.
CONFIG = f"""
_base_ = '{HERE / 'tiny_classifier.py'}'
custom_imports = dict(imports=['recorder'])
custom_hooks = [dict(type='mmstvit.EvalModeHook'), dict(type='Recorder')]
train_dataloader = dict(batch_size=8, dataset=dict(indices=16))
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
param_scheduler = None
train_cfg = dict(max_epochs=2, val_interval=9)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
"""
HALF = ('--cfg-options', 'train_dataloader.batch_size=4')


@pytest.fixture(scope='module')
def folder(scenes, tmp_path_factory):
    folder = link_scenes(tmp_path_factory.mktemp('distributed'), scenes)
    (folder / 'plain.py').write_text(CONFIG)
    return folder


@pytest.fixture(scope='module')
def run(tool, folder):
    """Run a tool in ``processes``; a ``.sh`` tool starts them itself."""

    def run(name: str, *args: object, processes: int = 1) -> str:
        if name.endswith('.sh'):
            return tool(name, *args, cwd=folder, env={'PYTHONPATH': str(HERE), **free_port()}).stdout
        return fork(name, *args, cwd=folder, env={'PYTHONPATH': str(HERE)}, processes=processes).stdout

    return run


@pytest.fixture(scope='module')
def one(run, folder):
    """One process with the whole batch."""
    run('train.py', 'plain.py', '--work-dir', 'one')
    return folder / 'one'


@pytest.fixture(scope='module')
def two(run, folder):
    """Two processes, each with half of the batch."""
    run('train.py', 'plain.py', '--work-dir', 'two', *HALF, processes=2)
    return folder / 'two'


def losses(work_dir: Path) -> torch.Tensor:
    """Losses (processes, iterations)."""
    files = sorted(work_dir.glob('losses_*.txt'))
    return torch.tensor([[float(line) for line in file.read_text().split()] for file in files], dtype=torch.float64)


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(work_dir / 'epoch_2.pth', weights_only=False)
    return {name: tensor for name, tensor in checkpoint['state_dict'].items() if tensor.is_floating_point()}


def assert_gloo_is_gone(work_dir: Path) -> None:
    """Check that gloo's threads ended before the interpreter did; otherwise the process may abort."""
    threads = [file.read_text().split() for file in work_dir.glob('threads_*.txt')]
    assert len(threads) == 2 and all(threads)
    assert not [name for names in threads for name in names if 'gloo' in name]


@pytest.mark.long
def test_two_processes_train_as_one(one, two):
    """With augmentation."""
    assert losses(two).shape == (2, 4)
    torch.testing.assert_close(losses(two).mean(dim=0, keepdim=True), losses(one), rtol=1e-5, atol=0)
    assert_near(weights(two), weights(one), 5e-5)
    assert_gloo_is_gone(two)


@pytest.mark.long
def test_four_processes_resume_what_two_began(run, one, two, folder):
    """The second epoch is the same as if one process had trained both."""
    options = ['--resume', two / 'epoch_1.pth', '--cfg-options', 'train_dataloader.batch_size=2']
    run('train.py', 'plain.py', '--work-dir', 'four', *options, processes=4)
    assert losses(folder / 'four').shape == (4, 2)
    resumed = losses(folder / 'four').mean(dim=0, keepdim=True)
    torch.testing.assert_close(resumed, losses(one)[:, 2:], rtol=1e-5, atol=0)
    assert_near(weights(folder / 'four'), weights(one), 5e-5)


@pytest.mark.long
def test_zero_saves_and_resumes(run, folder):
    """The optimizer's state is shared by the processes."""
    optimizer = "dict(type='ZeroRedundancyOptimizer', optimizer_type='AdamW', lr=0.001)"
    (folder / 'zero.py').write_text(CONFIG.replace("dict(type='SGD', lr=0.05, momentum=0.9)", optimizer))
    run('train.py', 'zero.py', '--work-dir', 'zero', *HALF, processes=2)
    options = ['--resume', folder / 'zero' / 'epoch_1.pth']
    run('train.py', 'zero.py', '--work-dir', 'zero_resumed', *options, *HALF, processes=2)
    state = torch.load(folder / 'zero' / 'epoch_2.pth', weights_only=False)['optimizer']['state']
    learned = [name for name in weights(folder / 'zero') if 'running_' not in name]
    assert len(state) == len(learned) and all('exp_avg' in part for part in state.values())
    assert_near(weights(folder / 'zero_resumed'), weights(folder / 'zero'), 5e-5)


@pytest.mark.long
def test_two_processes_give_the_metric_of_one(run, two, folder):
    """By the launcher's script."""
    single = metrics(run('test.py', 'plain.py', two / 'epoch_2.pth', '--work-dir', 'metric_1'))
    double = metrics(run('dist_test.sh', 'plain.py', two / 'epoch_2.pth', 2, '--work-dir', 'metric_2'))
    assert single == double and 'accuracy/top1' in single
    assert_gloo_is_gone(folder / 'metric_2')


@pytest.mark.long
def test_accumulated_batches_of_two_processes_train_as_one(run, one, folder):
    options = ['optim_wrapper.accumulative_counts=2', 'train_dataloader.batch_size=2']
    run('train.py', 'plain.py', '--work-dir', 'parts', '--cfg-options', *options, processes=2)
    parts = losses(folder / 'parts').view(2, 4, 2).mean(dim=(0, 2))  # of (processes, steps, iterations of a step)
    torch.testing.assert_close(parts[None], losses(one), rtol=1e-5, atol=0)
    assert_near(weights(folder / 'parts'), weights(one), 5e-5)
