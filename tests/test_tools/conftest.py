"""Run tools in the process of the tests."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from ..helpers import NANO
from ..in_process import restored, run_main
from ..nano import make_config, save_model


@pytest.fixture
def call(capsys: pytest.CaptureFixture) -> Callable[..., tuple[int, str, str]]:
    """Run a tool; returns its exit code, its standard output, and its error message."""

    def call(tool: str, *args: object) -> tuple[int, str, str]:
        code: object = None
        try:
            run_main(tool, *args, cwd=Path.cwd())
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        if isinstance(code, str):  # what Python prints as it ends, with exit code 1
            return 1, captured.out, code
        return code or 0, captured.out, captured.err

    return call


@pytest.fixture
def in_folder(tmp_path: Path) -> Iterator[Path]:
    """Work in an empty folder; afterwards the process is as before."""
    with restored(tmp_path):
        yield tmp_path


@pytest.fixture
def convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Run a tool in an empty folder; returns its standard output."""
    monkeypatch.chdir(tmp_path)

    def convert(tool: ModuleType, *args: object) -> str:
        monkeypatch.setattr(sys, 'argv', [tool.__name__, *map(str, args)])
        tool.main()
        return capsys.readouterr().out

    return convert


@pytest.fixture
def refused(convert: Callable[..., str], tmp_path: Path) -> Callable[..., None]:
    """Run a tool, and check that it fails with one line and changes no file."""

    def refused(message: str, tool: ModuleType, *args: object) -> None:
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')}
        with pytest.raises(SystemExit, match=f'(?s)^error: .*{message}'):
            convert(tool, *args)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob('*')} == before

    return refused


@pytest.fixture(scope='session')
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of an untrained model for each library, with its config as MMEngine stores it."""
    folder = tmp_path_factory.mktemp('checkpoints')
    return {library: save_model(make_config(library), folder / f'{library}.pth') for library in NANO}
