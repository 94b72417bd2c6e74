"""From a command line to a runner: one model, each checkpoint read once, a finished or resumed run."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, RUNNERS
from torch import Tensor

from mmstvit.apis import build_model, read_config
from mmstvit.engine.runner.factory import build_runner, build_seeded
from mmstvit.models import STViT

from ..fork_server import fork
from ..helpers import TINY_CLASSIFIER as CONFIG
from ..helpers import assert_equal, free_port, link_scenes
from ..in_process import restored, run_main

# Two iterations of four images.
SHORT = ['train_dataloader.dataset.indices=8', 'train_dataloader.batch_size=4', 'val_dataloader.dataset.indices=4']
SHORT += [
    f'{split}_dataloader.{key}' for split in ('train', 'val') for key in ('num_workers=0', 'persistent_workers=0')
]


def train(*args: object, options: tuple[str, ...] = (), cwd: Path) -> None:
    run_main('train.py', CONFIG, *args, '--cfg-options', *SHORT, *options, cwd=cwd)


@pytest.fixture(scope='module')
def folder(scenes, tmp_path_factory) -> Path:
    return link_scenes(tmp_path_factory.mktemp('prepare'), scenes)


@pytest.fixture(scope='module')
def finished(folder) -> Path:
    """The work dir of a run of one epoch."""
    train('--work-dir', 'run', options=('train_cfg.max_epochs=1',), cwd=folder)
    return folder / 'run'


@pytest.fixture
def built(monkeypatch) -> list[STViT]:
    """The backbones that are built."""
    models = []

    class Counted(STViT):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            models.append(self)

    monkeypatch.setitem(MODELS.children['mmstvit']._module_dict, 'STViT', Counted)
    return models


def test_a_copied_run_is_resumed_with_one_model_and_one_reading_and_names_what_it_takes_from_the_checkpoint(
    folder, finished, reads, built
):
    copied = shutil.copytree(finished, folder / 'copied')
    options = ('train_cfg.max_epochs=2', 'optim_wrapper.optimizer.lr=0.5', 'param_scheduler.0.T_max=30')
    train('--work-dir', 'copied', '--resume', options=options, cwd=folder)
    assert (copied / 'epoch_2.pth').exists() and not (finished / 'epoch_2.pth').exists()
    assert reads == ['copied/epoch_1.pth']
    assert len(built) == 1
    log = max(copied.glob('*/*.log')).read_text()
    listed = log.partition('values of the checkpoint')[2].partition('For a new run')[0]
    assert re.search(r'optim_wrapper\.optimizer\.lr: 0\.\d+ in the checkpoint, 0\.5 in the config', listed)
    assert re.search(r'param_scheduler\.0\.T_max: 6 in the checkpoint, 60 in the config', listed)
    assert 'weight_decay' not in listed
    assert 'without --resume, with --cfg-options load_from=' in log


def test_a_finished_run_says_so_and_writes_nothing(folder, finished, capsys):
    before = sorted(finished.rglob('*'))
    train('--work-dir', 'run', '--resume', options=('train_cfg.max_epochs=1',), cwd=folder)
    printed = capsys.readouterr().out
    assert 'run/epoch_1.pth' in printed and 'train_cfg.max_epochs=1' in printed
    assert sorted(finished.rglob('*')) == before


def test_pretrained_weights_are_read_once(folder, finished, reads, built):
    shutil.copy(finished / 'epoch_1.pth', folder / 'backbone.pth')
    options = ['train_cfg.max_epochs=1', 'load_from=run/epoch_1.pth']
    options += ['model.backbone.init_cfg.type=Pretrained', 'model.backbone.init_cfg.checkpoint=backbone.pth']
    train('--work-dir', 'pretrained', options=tuple(options), cwd=folder)
    assert reads == ['backbone.pth', 'run/epoch_1.pth']
    assert len(built) == 1


def test_code_that_mmengine_would_execute_when_resuming_is_not_executed(folder, finished):
    """MMEngine reads ``meta.config`` as a config, to compare the number of GPUs."""
    content = torch.load(finished / 'epoch_1.pth', weights_only=False)
    content['meta']['config'] = "import os\nos.mkdir('executed')\n"
    torch.save(content, folder / 'harmful.pth')
    train('--work-dir', 'harmful', '--resume', 'harmful.pth', options=('train_cfg.max_epochs=2',), cwd=folder)
    assert (folder / 'harmful' / 'epoch_2.pth').exists()
    assert not (folder / 'executed').exists()


class Stopped(Exception):
    """Raised when the training loop would begin."""


@pytest.mark.parametrize(
    'runner', [{}, {'runner_type': 'FlexibleRunner', 'strategy': {'type': 'SingleDeviceStrategy'}}]
)
def test_initial_weights_and_random_numbers_are_those_of_mmengines_own_runner(folder, tmp_path, runner):
    def initial(name: str, prepared: bool) -> dict[str, Tensor]:
        with restored(folder):
            cfg = read_config(str(CONFIG), {**runner, 'train_cfg.max_epochs': 1})
            cfg.update(work_dir=str(tmp_path), experiment_name=f'{tmp_path.name}_{name}', launcher='none')
            if prepared:
                runner_ = build_runner(cfg, build_seeded(cfg)[1])
            else:
                runner_ = RUNNERS.get(runner.get('runner_type', 'Runner')).from_cfg(cfg)

            def stop() -> None:
                raise Stopped

            runner_.load_or_resume = stop  # called when everything is built and initialized
            with pytest.raises(Stopped):
                runner_.train()
            return {**runner_.model.state_dict(), 'random state': torch.get_rng_state()}

    assert_equal(initial('prepared', True), initial('plain', False))


@pytest.fixture
def broken(scenes, tmp_path) -> Path:
    """A folder whose training images miss a class folder's name in the config."""
    shutil.copytree(scenes / 'imagenet', tmp_path / 'data' / 'scenes' / 'imagenet')
    (tmp_path / 'data' / 'scenes' / 'imagenet' / 'train' / 'star').rename(tmp_path / 'star')
    return tmp_path


def test_a_fault_is_found_before_the_model_is_built(broken, built):
    with pytest.raises(SystemExit, match="no folder for 'star'"):
        train('--amp', cwd=broken)
    assert built == [] and not (broken / 'work_dirs').exists()


ERROR_IN_ONE = """
from mmengine.config import Config
from mmstvit.engine.runner.processes import on_main_process, start_processes

start_processes(Config(dict(launcher='pytorch')))
print('the function returns', on_main_process(lambda: 'its value'))
on_main_process(lambda: 1 / 0)
"""


@pytest.mark.long
def test_an_error_in_the_main_process_ends_the_others(tmp_path):
    """Any error, of which no other process knows, and none waits for a process that is gone."""
    (tmp_path / 'script.py').write_text(ERROR_IN_ONE)
    done = fork(tmp_path / 'script.py', cwd=tmp_path, processes=2, timeout=60, code=1)
    assert sorted(line for line in done.stdout.splitlines() if line.startswith('the function')) == [
        'the function returns None',
        'the function returns its value',
    ]
    assert done.stderr.count('Traceback') == 1 and 'ZeroDivisionError' in done.stderr, done.stderr


@pytest.mark.long
def test_a_launcher_prints_the_fault_of_two_processes_once(broken, tool):
    done = tool('dist_train.sh', CONFIG, 2, '--cfg-options', *SHORT, cwd=broken, env=free_port(), timeout=120, code=1)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert "no folder for 'star'" in line
    assert f'traceback : {line}' in done.stderr  # torchrun's own report, which ends with it
    assert not (broken / 'work_dirs').exists()


def test_a_seed_that_the_config_leaves_open_is_drawn_and_set():
    with restored(Path.cwd()):
        cfg = Config.fromfile(CONFIG)
        cfg.randomness = dict(seed=None)
        model, _ = build_seeded(cfg)
        torch.manual_seed(cfg.randomness.seed)
        assert_equal(build_model(cfg).state_dict(), model.state_dict())
