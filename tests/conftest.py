"""Settings of the suite, a few of the bundled scenes, and the tools run as a user runs them."""

import copy
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import mmengine.config.utils
import pytest
import torch
from hypothesis import settings
from mmengine.config import Config

from mmstvit.fileio import loading

from .helpers import ROOT, link_scenes
from .in_process import run_main, shorten_logs

# The tensors are small: a second thread gains nothing, and waits for the first when the machine is busy.
torch.set_num_threads(1)
if 'PYTEST_XDIST_WORKER' in os.environ:  # nor for a tool that a test starts: the other cores have tests of their own
    os.environ['OMP_NUM_THREADS'] = '1'
shorten_logs()
settings.register_profile('mmstvit', derandomize=True, deadline=None, max_examples=150)
settings.load_profile('mmstvit')


LONGEST = ('test_learning.py', 'test_train_and_test.py', 'test_new_config.py', 'test_predict.py', 'test_service.py')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest files first: xdist gives whole files to its workers, in this order."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def run_tool(
    tool: str, *args: object, cwd: Path = ROOT, env: dict[str, str] | None = None, timeout: float = 400, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """Run ``tools/<tool>`` in a new process that must end with ``code``; a ``.sh`` tool finds this Python."""
    script = ROOT / 'tools' / tool
    command = [script] if tool.endswith('.sh') else [sys.executable, script]
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
    env = {**os.environ, 'PATH': path, 'GOMP_SPINCOUNT': '1000', 'PYTHONWARNINGS': 'ignore', **(env or {})}
    command = [*map(str, [*command, *args])]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, f'{tool} ended with {done.returncode}:\n{done.stderr[-3000:]}'
    return done


@pytest.fixture(scope='session', autouse=True)
def cached_configs() -> Iterator[None]:
    """Read configs and ``metafile.yml`` of the checkout and of packages once; MMEngine reads them for every base."""
    fixed = f'{ROOT}{os.sep}', f'{Path(mmengine.__file__).parents[1]}{os.sep}'
    read, kept = Config._file2dict, {}

    def read_once(filename: str, *args: object, **options: object) -> tuple:
        if not str(filename).startswith(fixed):
            return read(filename, *args, **options)
        key = filename, args, *options.items()
        if key not in kept:
            kept[key] = read(filename, *args, **options)
        return copy.deepcopy(kept[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Config, '_file2dict', staticmethod(read_once))
        patch.setattr(mmengine.config.utils, 'load', functools.cache(mmengine.config.utils.load))
        yield


@pytest.fixture(scope='session')
def tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_tool


@pytest.fixture(scope='session')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scenes: 16 for training, 6 for validation."""
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    run_main('dataset_converters/scenes.py', '--out-dir', folder, '--train', 16, '--val', 6, cwd=ROOT)
    return folder


@pytest.fixture(scope='session')
def trees(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scenes in ``data/`` as COCO 2017, ADE20K and ImageNet: their names, categories and layout."""
    from mmdet.datasets import CocoDataset

    root = tmp_path_factory.mktemp('trees')
    coco = root / 'data' / 'coco'
    (coco / 'annotations').mkdir(parents=True)
    for split in ('train', 'val'):
        shutil.copytree(scenes / 'coco' / split, coco / f'{split}2017')
        content = json.loads((scenes / 'coco' / 'annotations' / f'instances_{split}.json').read_text())
        content['categories'] = [dict(id=i, name=name) for i, name in enumerate(CocoDataset.METAINFO['classes'], 1)]
        (coco / 'annotations' / f'instances_{split}2017.json').write_text(json.dumps(content))
    shutil.copytree(scenes / 'ade20k', root / 'data' / 'ade' / 'ADEChallengeData2016')
    for split in ('train', 'val'):
        crops = sorted((scenes / 'imagenet' / split).rglob('*.jpg'))
        for label in range(1000):
            folder = root / 'data' / 'imagenet' / split / f'n{label:08d}'
            folder.mkdir(parents=True)
            (folder / 'image.JPEG').symlink_to(crops[label % len(crops)])
    return root


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The checkpoints that are read, by their paths from the working directory."""
    paths, read = [], loading.read_checkpoint

    def record(path: str | Path, *args: object, **options: object) -> object:
        paths.append(os.path.relpath(path))
        return read(path, *args, **options)

    monkeypatch.setattr(loading, 'read_checkpoint', record)
    return paths


@pytest.fixture
def workspace(scenes: Path, tmp_path: Path) -> Path:
    """An empty folder with the scenes where the configs look for them."""
    return link_scenes(tmp_path, scenes)
