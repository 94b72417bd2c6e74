"""The bundled scenes, a few of them, and the tools as a user runs them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_tool(tool: str, *args: object, cwd: Path = ROOT, timeout: float = 400) -> subprocess.CompletedProcess[str]:
    """Run ``tools/<tool>`` in a process of its own; a ``.sh`` tool finds this interpreter as ``python``."""
    path = ROOT / 'tools' / tool
    command = [path] if tool.endswith('.sh') else [sys.executable, path]
    env = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}
    env |= {'OMP_WAIT_POLICY': 'PASSIVE', 'PYTHONWARNINGS': 'ignore'}
    return subprocess.run(
        [*map(str, [*command, *args])], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope='session')
def tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    return run_tool


@pytest.fixture(scope='session')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of scenes: 16 for training, 6 for validation."""
    folder = tmp_path_factory.mktemp('data') / 'scenes'
    done = run_tool('dataset_converters/scenes.py', '--out-dir', folder, '--train', 16, '--val', 6)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def workspace(scenes: Path, tmp_path: Path) -> Path:
    """An empty folder with the scenes where the configs look for them."""
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'scenes').symlink_to(scenes)
    return tmp_path
