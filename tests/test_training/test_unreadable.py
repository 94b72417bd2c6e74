"""Real trainings and tests with an image that cannot be read: ended, or gone on with, as the config says."""

import json
import shutil
from pathlib import Path

import pytest

from ..helpers import ROOT, assert_equal, free_port
from .test_stop_and_go import SABOTAGE, assert_killed, state

HERE = Path(__file__).parent
CONFIG = HERE / 'tiny_classifier.py'
SEGMENTOR = ROOT / 'configs' / 'upernet' / 'stvit-nano_upernet_scenes.py'
DETECTOR = ROOT / 'configs' / 'mask_rcnn' / 'mask-rcnn_stvit-nano_fpn_scenes.py'
SKIP = 'data_faults.unreadable=skip'

pytestmark = pytest.mark.long


@pytest.fixture
def folder(scenes, tmp_path) -> Path:
    """A copy of the scenes, to be spoilt."""
    shutil.copytree(scenes, tmp_path / 'data' / 'scenes')
    return tmp_path


def cut(path: Path) -> Path:
    content = path.read_bytes()
    path.unlink()  # the layouts share files
    path.write_bytes(content[: len(content) // 2])
    return path


def crops(folder: Path, split: str) -> list[Path]:
    return sorted((folder / 'data' / 'scenes' / 'imagenet' / split).rglob('*.jpg'))


@pytest.mark.parametrize('split', ['train', 'val'])
def test_it_ends_the_run_with_its_path(split, tool, folder):
    """In training, and in validation in spite of what the training may skip."""
    broken = cut(crops(folder, split)[3]).relative_to(folder)
    options = [SKIP] if split == 'val' else []
    done = tool('train.py', CONFIG, '--cfg-options', 'train_cfg.max_epochs=1', *options, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f'error: Cannot read {broken}: the file is truncated')
    assert 'Traceback' not in done.stderr


def test_a_test_ends_as_well(tool, folder):
    trained = tool('train.py', CONFIG, '--work-dir', 'run', '--cfg-options', 'train_cfg.max_epochs=1', cwd=folder)
    assert trained.returncode == 0, trained.stderr[-3000:]
    broken = cut(crops(folder, 'val')[3]).relative_to(folder)
    done = tool('test.py', CONFIG, 'run/epoch_1.pth', cwd=folder)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f'error: Cannot read {broken}: ')


def test_skipped_it_is_counted_and_a_resumed_run_repeats_what_took_its_place(tool, folder):
    broken = cut(crops(folder, 'train')[3]).relative_to(folder)
    (folder / 'killed.py').write_text(f"_base_ = '{CONFIG}'" + SABOTAGE)
    options = ['--cfg-options', SKIP, 'train_dataloader.num_workers=2']
    env = {'PYTHONPATH': str(HERE), 'DIE_AT': ''}
    whole = tool('train.py', 'killed.py', '--work-dir', 'whole', *options, cwd=folder, env=env)
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert f'Cannot read {broken}: the file is truncated' in whole.stdout
    assert 'Files that could not be read: 1. Other samples took their places' in whole.stdout
    (listed,) = next((folder / 'whole').glob('*/unreadable_files.txt')).read_text().splitlines()
    assert listed.startswith(f'{broken}: the file is truncated')
    killed = tool(
        'train.py', 'killed.py', '--work-dir', 'parts', *options, cwd=folder, env={**env, 'DIE_AT': 'train:9'}
    )
    assert_killed(killed)
    resumed = tool('train.py', 'killed.py', '--work-dir', 'parts', '--resume', *options, cwd=folder, env=env)
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert_equal(state(folder / 'parts' / 'epoch_3.pth'), state(folder / 'whole' / 'epoch_3.pth'))


def test_two_processes_count_together(tool, folder):
    broken = [cut(path).relative_to(folder) for path in crops(folder, 'train')[3:6]]
    options = ['--cfg-options', SKIP, 'train_dataloader.batch_size=4', 'train_cfg.max_epochs=1']
    done = tool('dist_train.sh', CONFIG, 2, '--work-dir', 'run', *options, cwd=folder, env=free_port())
    assert done.returncode == 0, done.stderr[-3000:]
    listed = next((folder / 'run').glob('*/unreadable_files.txt')).read_text()
    assert [line.partition(':')[0] for line in listed.splitlines()] == [str(path) for path in broken]
    fatal = ['--cfg-options', 'train_cfg.max_epochs=1']
    done = tool('dist_train.sh', CONFIG, 2, '--work-dir', 'fatal', *fatal, cwd=folder, env=free_port())
    assert done.returncode != 0 and 'error: Cannot read data/scenes/imagenet/train' in done.stderr


def test_a_segmentation_map(tool, folder):
    broken = cut(folder / 'data' / 'scenes' / 'ade20k' / 'annotations' / 'training' / '000002.png')
    options = ['train_cfg.max_iters=4', 'train_cfg.val_interval=99', 'train_dataloader.batch_size=4', SKIP]
    done = tool('train.py', SEGMENTOR, '--work-dir', 'run', '--cfg-options', *options, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f'{broken.relative_to(folder)}: the file is truncated' in done.stdout.partition('could not be read: 1.')[2]


def test_an_annotation_file_without_usable_objects_is_an_error(tool, folder):
    path = folder / 'data' / 'scenes' / 'coco' / 'annotations' / 'instances_train.json'
    content = json.loads(path.read_text())
    for category in content['categories']:
        category['name'] = category['name'].upper()
    path.write_text(json.dumps(content))
    done = tool('train.py', DETECTOR, cwd=folder)
    assert done.returncode == 1 and 'Traceback' not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith('error: train_dataloader.dataset') and "'CIRCLE'" in last and 'metainfo.classes' in last
    assert 'Epoch(train)' not in done.stdout
