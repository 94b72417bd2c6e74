"""The same global batch, in one process or two, at once or in parts, gives the same training."""

import re
import socket
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import distributed

from mmstvit.apis import UserError, build_runner

from ..helpers import ROOT, assert_near, link_scenes

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
"""
FSDP = Config.fromfile(ROOT / 'configs' / 'imagenet' / 'stvit-large_fsdp_8xb128_in1k.py')
HALF = ('--cfg-options', 'train_dataloader.batch_size=4')


def free_port() -> dict[str, str]:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return {'PORT': str(probe.getsockname()[1])}


@pytest.fixture(scope='module')
def folder(scenes, tmp_path_factory):
    folder = link_scenes(tmp_path_factory.mktemp('distributed'), scenes)
    (folder / 'plain.py').write_text(CONFIG)
    sharded = f"_base_ = './plain.py'\nrunner_type = '{FSDP.runner_type}'\nstrategy = {FSDP.strategy.to_dict()}\n"
    # The model is small: shard every block.
    (folder / 'sharded.py').write_text(sharded.replace('1000000', '1000'))
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


def accuracy(output: str) -> float:
    return float(re.search(r'^accuracy/top1 +(\S+)$', output, re.MULTILINE).group(1))


@pytest.mark.long
@pytest.mark.parametrize(('config', 'copies'), [('plain.py', 2), ('sharded.py', 1)])
def test_two_processes_train_as_one(run, one, folder, config, copies):
    """Replicated, and sharded by FSDP; the augmentation is on."""
    work_dir = folder / Path(config).stem
    run('dist_train.sh', config, 2, '--work-dir', work_dir.name, *HALF)
    assert losses(work_dir).shape == (2, 10)
    torch.testing.assert_close(losses(work_dir).mean(dim=0, keepdim=True), losses(one), rtol=1e-5, atol=0)
    assert_near(weights(work_dir), weights(one), 5e-5)
    assert sum(numbers(work_dir)) == copies * sum(numbers(one))


@pytest.mark.long
def test_two_processes_give_the_metric_of_one(run, one):
    test = ['plain.py', one / 'epoch_2.pth', '--work-dir', 'metric']
    single = accuracy(run('test.py', *test))
    assert accuracy(run('dist_test.sh', *test[:2], 2, *test[2:])) == single


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


@pytest.mark.parametrize(('gpu', 'backend'), [(True, 'nccl'), (False, 'gloo')])
def test_processes_talk_through(monkeypatch, gpu, backend):
    class Asked(Exception):
        pass

    def ask(backend: str, **_: object) -> None:
        raise Asked(backend)

    cfg = Config.fromfile(HERE / 'tiny_classifier.py')
    cfg.launcher = 'pytorch'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(torch.cuda, 'set_device', lambda device: None)
    monkeypatch.setattr(distributed, 'init_process_group', ask)
    for name in ('RANK', 'LOCAL_RANK'):
        monkeypatch.setenv(name, '0')
    cfg.work_dir = 'unused'
    with pytest.raises(Asked, match=backend):
        build_runner(cfg, train=True)


def test_one_process_does_not_shard():
    with pytest.raises(UserError, match=r'dist_train\.sh'):
        build_runner(FSDP, train=True)
