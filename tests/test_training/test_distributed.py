"""The same global batch, in one process or two, at once or in parts, gives the same training."""

import copy
import functools
import re
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from mmengine._strategy import DeepSpeedStrategy
from mmengine.config import Config
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import DefaultScope
from torch import distributed

from mmstvit.apis import UserError, build_runner, leave_process_group

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


@pytest.mark.parametrize(('gpu', 'backend'), [(True, 'nccl'), (False, 'gloo')])
def test_processes_talk_through(monkeypatch, tmp_path, gpu, backend):
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
    cfg.work_dir = str(tmp_path)
    with pytest.raises(Asked, match=backend):
        build_runner(cfg, train=True)


@pytest.fixture
def group_of_one(monkeypatch):
    """The environment of a launcher's only process, and no GPU."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    env = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port()['PORT'])
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    # A runner's scope would stay the default for the tests after it.
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict(DefaultScope._instance_dict))
    yield
    leave_process_group()
    assert not distributed.is_initialized()


@pytest.mark.parametrize(('wrapper', 'broadcast', 'unused'), [
    (None, False, False),  # MMEngine's choice
    (dict(type='MMDistributedDataParallel', broadcast_buffers=True), True, False),
    (dict(find_unused_parameters=True), True, True),  # the rest is PyTorch's
])  # fmt: skip
def test_the_config_says_how_the_model_is_wrapped(group_of_one, tmp_path, wrapper, broadcast, unused):
    cfg = Config.fromfile(HERE / 'tiny_classifier.py')
    cfg.update(launcher='pytorch', work_dir=str(tmp_path), model_wrapper_cfg=wrapper, experiment_name=tmp_path.name)
    model = build_runner(cfg, train=True).model
    assert type(model) is MMDistributedDataParallel and model.device_ids is None
    assert (model.broadcast_buffers, model.find_unused_parameters) == (broadcast, unused)


@pytest.mark.parametrize(('strategy', 'launcher', 'words'), [
    ({}, 'none', r'dist_train\.sh'),
    ({'state_dict_cfg': 'local'}, 'pytorch', "must be 'full', but got 'local'"),
    ({'state_dict_cfg': None}, 'pytorch', "must be 'full', but got None"),
    ({'type': 'DeepSpeedStrategy'}, 'pytorch', 'but got DeepSpeedStrategy'),
    ({'type': DeepSpeedStrategy}, 'pytorch', 'but got DeepSpeedStrategy'),
])  # fmt: skip
def test_a_strategy_that_does_not_go_is_refused(tmp_path, strategy, launcher, words):
    cfg = copy.deepcopy(FSDP)
    cfg.merge_from_dict(dict(strategy=strategy, launcher=launcher, work_dir=str(tmp_path / 'run')))
    with pytest.raises(UserError, match=words):
        build_runner(cfg, train=True)
    assert not (tmp_path / 'run').exists()
