"""Bad inputs end in one clear message, an exit code that is not 0 and an untouched disk; docs/bad_inputs.md shows them.

The page is what these tests saw. After a change of a message, MMSTVIT_UPDATE_DOCS=1 writes it anew.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bad_inputs import CASES, SECTIONS, Case
from .helpers import ROOT, load_tool

PAGE = ROOT / 'docs' / 'bad_inputs.md'
UPDATE = os.environ.get('MMSTVIT_UPDATE_DOCS') == '1'
HEADER = f"""\
# Bad inputs

What the tools print for {len(CASES)} inputs that they cannot use, and the exit code. `pytest tests/test_bad_inputs.py`
tries them all, sees that nothing was written, changed or executed, and compares what was printed with this page;
`MMSTVIT_UPDATE_DOCS=1 pytest tests/test_bad_inputs.py` writes the page anew. Commands are without `python` in front.
"""


@pytest.fixture(scope='session')
def rows() -> Iterator[dict[str, str]]:
    """Rows of the page by what was tried, as the tests see them; at the end they become the page, if that is wanted."""
    seen: dict[str, str] = {}
    yield seen
    if UPDATE:
        assert len(seen) == len(CASES), 'the page is written by all of the tests together'
        PAGE.write_text(page(seen))


def page(rows: dict[str, str]) -> str:
    parts = [HEADER]
    for section in SECTIONS:
        lines = [rows[case.what] for case in CASES if case.section == section]
        parts.append(
            '\n'.join([f'## {section}\n', '| what | command | printed | exit code |', '|---|---|---|---|', *lines, ''])
        )
    return '\n'.join(parts)


def row(case: Case, printed: str, code: int) -> str:
    lines = '<br>'.join(as_code(line.strip()) for line in printed.splitlines())
    return f'| {case.what} | {as_code(case.command)} | {lines} | {code} |'


def as_code(text: str) -> str:
    """Text for a cell of a table, in which nothing is markup."""
    fence = '``' if '`' in text else '`'
    return f'{fence}{text}{fence}'.replace('|', r'\|')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user would be: configs, tools and data as in a clone. What a tool sets for its process is set back."""
    for name in ('configs', 'tools'):
        (tmp_path / name).symlink_to(ROOT / name)
    for split in ('train', 'val'):  # train.py and test.py want to see that the data are there
        (tmp_path / 'data' / 'scenes' / 'imagenet' / split).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    return tmp_path


def run(command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> tuple[str, int]:
    """Run a tool in this process; what it printed and its exit code, as the shell would have them."""
    tool, *args = shlex.split(command)
    monkeypatch.setattr(sys, 'argv', [tool, *args])
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        load_tool(tool.removeprefix('tools/')).main()
    printed = capsys.readouterr()
    code = caught.value.code
    if isinstance(code, str):
        text, code = code, 1
    elif code == 2:  # of argparse, which prints the usage first
        text = printed.err.strip().rpartition('\n')[2]
    else:
        text = printed.out.strip()
    for root in (Path.cwd(), ROOT):
        text = text.replace(f'{root}/', '')
    return text, code


def snapshot(folder: Path) -> dict[str, tuple]:
    """Every file and folder, when it was changed, and what is in it."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(root, name)
            found[str(path)] = path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None
    return found


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.what)
def test_is_refused(case, folder, rows, monkeypatch, capsys):
    case.prepare()
    before = snapshot(folder)
    printed, code = run(case.command, monkeypatch, capsys)
    assert snapshot(folder) == before
    assert code == case.code != 0
    assert case.says in printed
    rows[case.what] = row(case, printed, code)
