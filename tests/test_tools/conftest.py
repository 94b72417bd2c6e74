"""Run converters in the process of the tests."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


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
