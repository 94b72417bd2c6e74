"""Bad inputs end in one clear message and an exit code that is not 0, and change no file."""

import os
import shlex
from pathlib import Path

import pytest

from .bad_inputs import CASES
from .helpers import ROOT
from .in_process import run_main


@pytest.fixture
def folder(scenes: Path, tmp_path: Path) -> Path:
    """A folder as users have it: configs and tools as in a clone, and data for the classifier."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / 'data' / 'scenes').mkdir(parents=True)
    (tmp_path / 'data' / 'scenes' / 'imagenet').symlink_to(scenes / 'imagenet')
    return tmp_path


def snapshot(folder: Path) -> dict[str, tuple]:
    """Read every file and folder: when it was changed, and its content."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(root, name)
            found[str(path)] = path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None
    return found


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.what)
def test_is_refused(case, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    case.prepare()
    before = snapshot(folder)
    tool, *args = shlex.split(case.command)
    with pytest.raises(SystemExit) as caught:
        run_main(tool.removeprefix('tools/'), *args, cwd=folder)
    assert snapshot(folder) == before
    code, printed = caught.value.code, capsys.readouterr()
    if isinstance(code, str):
        message, code = code, 1
        assert message.startswith('error: ')
    else:
        message = printed.err.strip().rpartition('\n')[2] if code == 2 else printed.out
    assert code == case.code
    assert [word for word in case.words if word not in message] == [], message
