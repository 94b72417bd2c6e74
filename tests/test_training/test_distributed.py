"""The same global batch, in one process or two, at once or in parts, gives the same training."""

import copy
import functools
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from ..helpers import ROOT, assert_near, free_port, link_scenes

HERE = Path(__file__).parent
# Without what depends on the batch (BatchNorm's statistics) or on the process (drop path); SGD, because Adam divides
# a gradient by its own size and so makes much of a rounding error.
CONFIG = f"""
_base_ = '{HERE / 'tiny_classifier.py'}'
custom_imports = dict(imports=['recorder'])
custom_hooks = [dict(type='mmstvit.EvalModeHook'), dict(type='Recorder')]
train_dataloader = dict(batch_size=8, dataset=dict(indices=40))
optim_wrapper = dict(_delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9))
param_scheduler = None
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=2))
"""
FSDP = Config.fromfile(ROOT / 'configs' / 'imagenet' / 'stvit-large_fsdp_8xb128_in1k.py')
HALF = ('--cfg-options', 'train_dataloader.batch_size=4')


@pytest.fixture(scope='module')
def folder(scenes, tmp_path_factory):
    folder = link_scenes(tmp_path_factory.mktemp('distributed'), scenes)
    (folder / 'plain.py').write_text(CONFIG)
    strategy = copy.deepcopy(FSDP.strategy)
    strategy.model_wrapper.auto_wrap_policy.min_num_params = 1000  # the model is small: shard every block
    sharded = f"_base_ = './plain.py'\nrunner_type = '{FSDP.runner_type}'\nstrategy = {strategy.to_dict()}\n"
    (folder / 'sharded.py').write_text(sharded)
    return folder


@pytest.fixture(scope='module')
def run(tool, folder):
    def run(name: str, *args: object) -> str:
        done = tool(name, *args, cwd=folder, env={'PYTHONPATH': str(HERE), **free_port()})
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    return run


@pytest.fixture(scope='module')
def one(run, folder):
    """One process and the whole batch."""
    run('train.py', 'plain.py', '--work-dir', 'one')
    return folder / 'one'


@pytest.fixture(scope='module')
def two(run, folder):
    """Two processes, each with half of the batch."""

    @functools.cache
    def train(config: str) -> Path:
        work_dir = folder / Path(config).stem
        run('dist_train.sh', config, 2, '--work-dir', work_dir.name, *HALF)
        return work_dir

    return train


def losses(work_dir: Path) -> torch.Tensor:
    """(processes, iterations)"""
    files = sorted(work_dir.glob('losses_*.txt'))
    return torch.tensor([[float(line) for line in file.read_text().split()] for file in files], dtype=torch.float64)


def weights(work_dir: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(work_dir / 'epoch_2.pth', weights_only=False)
    return {name: tensor for name, tensor in checkpoint['state_dict'].items() if tensor.is_floating_point()}


def numbers(work_dir: Path) -> list[int]:
    """Of the parameters, in each process."""
    return [int(file.read_text()) for file in sorted(work_dir.glob('numbers_*.txt'))]


def assert_gloo_is_gone(work_dir: Path) -> None:
    """From both processes before they ended: its threads make a process abort if they outlive the interpreter."""
    threads = [file.read_text().split() for file in work_dir.glob('threads_*.txt')]
    assert len(threads) == 2 and all(threads)
    assert not [name for names in threads for name in names if 'gloo' in name]


def accuracy(output: str) -> float:
    return float(re.search(r'^accuracy/top1 +(\S+)$', output, re.MULTILINE).group(1))


@pytest.mark.long
@pytest.mark.parametrize(('config', 'copies'), [('plain.py', 2), ('sharded.py', 1)])
def test_two_processes_train_as_one(one, two, config, copies):
    """Replicated, and sharded by FSDP; the augmentation is on."""
    work_dir = two(config)
    assert losses(work_dir).shape == (2, 10)
    torch.testing.assert_close(losses(work_dir).mean(dim=0, keepdim=True), losses(one), rtol=1e-5, atol=0)
    assert_near(weights(work_dir), weights(one), 5e-5)
    assert sum(numbers(work_dir)) == copies * sum(numbers(one))
    assert_gloo_is_gone(work_dir)


@pytest.mark.long
def test_four_processes_resume_what_two_sharded(run, one, two, folder):
    """The second epoch goes as if one process had trained both."""
    checkpoint = two('sharded.py') / 'epoch_1.pth'
    options = ['--resume', checkpoint, '--cfg-options', 'train_dataloader.batch_size=2']
    run('dist_train.sh', 'sharded.py', 4, '--work-dir', 'four', *options)
    assert losses(folder / 'four').shape == (4, 5)
    resumed = losses(folder / 'four').mean(dim=0, keepdim=True)
    torch.testing.assert_close(resumed, losses(one)[:, 5:], rtol=1e-5, atol=0)
    assert_near(weights(folder / 'four'), weights(one), 5e-5)


@pytest.mark.long
def test_two_processes_give_the_metric_of_one(run, one, folder):
    checkpoint = one / 'epoch_2.pth'
    single = accuracy(run('test.py', 'plain.py', checkpoint, '--work-dir', 'metric_1'))
    assert accuracy(run('dist_test.sh', 'plain.py', checkpoint, 2, '--work-dir', 'metric_2')) == single
    assert_gloo_is_gone(folder / 'metric_2')


@pytest.mark.long
@pytest.mark.parametrize('processes', [1, 2])
def test_accumulated_batches_train_as_one(run, one, folder, processes):
    name = f'parts_{processes}'
    tool = ('train.py', 'plain.py') if processes == 1 else ('dist_train.sh', 'plain.py', processes)
    options = ['optim_wrapper.accumulative_counts=2', f'train_dataloader.batch_size={4 // processes}']
    run(*tool, '--work-dir', name, '--cfg-options', *options)
    # (processes, steps, parts of a step)
    parts = losses(folder / name).view(processes, 10, 2).mean(dim=(0, 2))
    torch.testing.assert_close(parts[None], losses(one), rtol=1e-5, atol=0)
    assert_near(weights(folder / name), weights(one), 5e-5)
