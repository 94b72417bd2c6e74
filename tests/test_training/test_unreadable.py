"""Runs with an unreadable image end, or continue with other samples, as the config says."""

import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmstvit.apis import build_model

from ..fork_server import fork
from ..helpers import assert_equal
from .test_stop_and_go import ENDS, SABOTAGE, state

HERE = Path(__file__).parent
CONFIG = HERE / 'tiny_classifier.py'
SKIP = 'data_faults.unreadable=skip'

pytestmark = pytest.mark.long


@pytest.fixture
def folder(scenes, tmp_path) -> Path:
    """A copy of the scenes whose files a test may change."""
    shutil.copytree(scenes, tmp_path / 'data' / 'scenes')
    return tmp_path


def truncate(path: Path) -> Path:
    content = path.read_bytes()
    path.unlink()  # the layouts share files
    path.write_bytes(content[: len(content) // 2])
    return path


def crops(folder: Path, split: str) -> list[Path]:
    return sorted((folder / 'data' / 'scenes' / 'imagenet' / split).rglob('*.jpg'))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_training_ends_with_its_path(split, folder):
    """In validation also if training may skip files."""
    broken = truncate(crops(folder, split)[3]).relative_to(folder)
    options = [SKIP] if split == 'val' else []
    done = fork('train.py', CONFIG, '--cfg-options', 'train_cfg.max_epochs=1', *options, cwd=folder, code=1)
    assert done.stderr.splitlines()[-1].startswith(f'error: Cannot read {broken}: the file is truncated')
    assert 'Traceback' not in done.stderr


def test_testing_ends_with_its_path(folder):
    torch.save(dict(state_dict=build_model(Config.fromfile(CONFIG)).state_dict()), folder / 'untrained.pth')
    broken = truncate(crops(folder, 'val')[3]).relative_to(folder)
    done = fork('test.py', CONFIG, 'untrained.pth', cwd=folder, code=1)
    assert done.stderr.splitlines()[-1].startswith(f'error: Cannot read {broken}: ')


def test_skipped_files_are_counted_and_a_resumed_run_has_the_same_replacements(folder):
    broken = truncate(crops(folder, 'train')[3]).relative_to(folder)
    (folder / 'killed.py').write_text(f"_base_ = '{CONFIG}'" + SABOTAGE)
    options = ['--cfg-options', SKIP, 'train_dataloader.num_workers=2', 'train_cfg.max_epochs=2']
    env = {'PYTHONPATH': str(HERE), 'DIE_AT': ''}
    whole = fork('train.py', 'killed.py', '--work-dir', 'whole', *options, cwd=folder, env=env)
    assert f'Cannot read {broken}: the file is truncated' in whole.stdout
    assert 'Unreadable files: 1. They were replaced by other samples' in whole.stdout
    (listed,) = next((folder / 'whole').glob('*/unreadable_files.txt')).read_text().splitlines()
    assert listed.startswith(f'{broken}: the file is truncated')
    killed = {**env, 'DIE_AT': 'train:5'}
    parts = ['train.py', 'killed.py', '--work-dir', 'parts', *options]
    fork(*parts, cwd=folder, env=killed, code=ENDS['SIGKILL'])
    fork(*parts, '--resume', cwd=folder, env=env)
    assert_equal(state(folder / 'parts' / 'epoch_2.pth'), state(folder / 'whole' / 'epoch_2.pth'))


def test_two_processes_count_together(folder):
    broken = [truncate(path).relative_to(folder) for path in crops(folder, 'train')[3:6]]
    options = ['--cfg-options', SKIP, 'train_dataloader.batch_size=4', 'train_cfg.max_epochs=1']
    fork('train.py', CONFIG, '--work-dir', 'run', *options, cwd=folder, processes=2)
    listed = next((folder / 'run').glob('*/unreadable_files.txt')).read_text()
    assert [line.partition(':')[0] for line in listed.splitlines()] == [str(path) for path in broken]
