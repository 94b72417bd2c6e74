"""Help, refusals and the version come without torch, whose import takes seconds; help speaks of what was typed."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from mmstvit.command_line import make_parser
from mmstvit.dependencies import COMMANDS

from ..helpers import ROOT, run_python

# Without the second half of setup_env.py, which only that calls.
FILES = [path for path in (ROOT / 'tools').rglob('*.py') if path.name != 'fill_env.py']
TOOLS = sorted(path.relative_to(ROOT).as_posix() for path in FILES)
# Runs command lines, JSON of [script or module, arguments…], in one process. Prints JSON of what each one printed and
# the exit code; fails as soon as torch is there.
DRIVER = """
import contextlib, io, json, runpy, sys

def run(program, *arguments):
    sys.argv = [program, *arguments]
    output = io.StringIO()
    code = 0
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            if program.endswith('.py'):
                runpy.run_path(program, run_name='__main__')
            else:
                runpy.run_module(program, run_name='__main__')
        except SystemExit as stop:
            code = stop.code
    assert 'torch' not in sys.modules, sys.argv
    return output.getvalue(), code or 0

print(json.dumps([run(*line) for line in json.loads(%r)]))
"""


def run_all(lines: list[list[str]]) -> list[tuple[str, int]]:
    """Run command lines in one process without torch; return what each printed, and its exit code."""
    done = run_python(DRIVER % json.dumps(lines), ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return [tuple(result) for result in json.loads(done.stdout)]


def check_help(text: str) -> None:
    """Check the words of a help text."""
    assert len(text.splitlines()) > 5
    assert '``' not in text and not re.search(r'::$', text, re.MULTILINE)


def test_help_of_every_tool():
    for tool, (text, code) in zip(TOOLS, run_all([[tool, '--help'] for tool in TOOLS]), strict=True):
        assert code == 0 and text.startswith(f'usage: {tool.rpartition("/")[2]} ')
        check_help(text)
        if 'Example' in text:
            assert f'    python {tool}' in text


def test_help_of_every_command():
    for name, (text, code) in zip(COMMANDS, run_all([['mmstvit', name, '--help'] for name in COMMANDS]), strict=True):
        assert code == 0 and text.startswith(f'usage: mmstvit {name} ')
        check_help(text)
        assert COMMANDS[name] not in text
        if 'Example' in text:
            assert f'    mmstvit {name} ' in text


@pytest.mark.parametrize(('typed', 'meant'), [('tain', 'train'), ('super_tokens', 'super-tokens'), ('xyz', None)])
def test_a_misspelt_command(typed, meant):
    ((text, code),) = run_all([['mmstvit', typed]])
    assert code == 2 and text.startswith(f"error: mmstvit has no command '{typed}'.")
    assert ('Did you mean' in text) == (meant is not None) and f'Did you mean {meant or ""}' in text + 'Did you mean '
    assert all(f'\n  {name} ' in text for name in COMMANDS)


def test_a_wrong_option_and_the_list_of_commands():
    (wrong, code), (listed, _) = run_all([
        ['mmstvit', 'train', 'mine.py', '--ampp'], ['mmstvit', '--help']
    ])  # fmt: skip
    assert code == 2 and wrong.splitlines()[-1] == 'mmstvit train: error: unrecognized arguments: --ampp'
    check_help(listed)


def test_the_installed_command_takes_the_same_way(tmp_path):
    command = [sys.executable, '-X', 'importtime', '-m', 'mmstvit', 'train', '--help']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and not re.search(r'\| +(torch|mmengine|numpy)$', done.stderr, re.MULTILINE)


def test_other_tools_in_an_example_are_named_as_commands_too(monkeypatch):
    doc = 'Do it.\n\nExample::\n\n    python tools/predict.py a\n    python tools/deployment/test.py b'
    monkeypatch.setattr(sys, 'argv', ['mmstvit export', '--help'])
    assert 'Example:\n\n    mmstvit predict a\n    python tools/deployment/test.py b' in make_parser(doc).format_help()
    monkeypatch.setattr(sys, 'argv', ['tools/deployment/export.py', '--help'])
    assert '    python tools/predict.py a' in make_parser(doc).format_help()


def test_the_formats_of_export_are_those_of_the_package():
    from mmstvit.deployment import FORMATS

    ((text, _),) = run_all([['tools/deployment/export.py', '--help']])
    assert f'{{{",".join(FORMATS)}}}' in text


def test_configs_are_listed_by_words():
    """Each name is one that the tools take."""
    (names, code), (error, refused) = run_all(
        [['mmstvit', 'list', 'stvit-small', 'upernet'], ['mmstvit', 'list', 'xyz']]
    )
    assert (code, refused) == (0, 2) and 'no config has xyz in its name' in error
    assert names.split() == ['mmstvit::upernet/stvit-small_upernet_8xb2-160k_ade20k-512x512.py']


@pytest.mark.parametrize('arguments', [['--help'], ['train', 'config.py']])
def test_sources_that_are_not_installed_are_refused_in_a_sentence(arguments, tmp_path):
    shutil.copytree(ROOT / 'mmstvit', tmp_path / 'mmstvit', ignore=shutil.ignore_patterns('.mim', '__pycache__'))
    done = subprocess.run([sys.executable, '-m', 'mmstvit', *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count('\n') == 1
    assert 'not installed' in done.stderr and 'pip install -e .' in done.stderr
