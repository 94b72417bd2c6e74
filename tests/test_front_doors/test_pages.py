"""README, CONTRIBUTING and docs/: links lead somewhere, commands have options that exist, pages and notebook run.

``test_own_data.py`` and ``test_documented.py`` run the commands of their pages. The tests of a tool run it; here its
own parser reads what the pages write, so that no page names an option, a config or a key that does not exist.
"""

import argparse
import ast
import functools
import itertools
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from mmengine.config import Config
from nbclient import NotebookClient

from mmstvit import doctor, install_mmcv
from mmstvit.apis import read_config
from mmstvit.dependencies import COMMANDS
from mmstvit.rules.kinds import KINDS, check_kinds

from ..helpers import ROOT, load_tool
from ..in_process import restored

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
NOTEBOOK = ROOT / 'docs' / 'quick_start.ipynb'
NOT_RUN = {
    'pip': 'changes the environment; CI runs make env',
    'gdown': 'a download from the authors; never run here',
    'mim': 'not in the tested set; tried by hand',
    'wget': 'downloads many GB',
    'standalone.py': 'a copy; tests/test_deployment/test_standalone.py runs it',
    **dict.fromkeys(['unzip', 'tar', 'sed', 'mkdir', 'cd', 'for', 'done', 'source'], 'steps around a download'),
}
LAUNCHERS = {'dist_train.sh': ('train.py', [1]), 'dist_test.sh': ('test.py', [2])}
LAUNCHERS |= {'slurm_train.sh': ('train.py', [0, 1, 3]), 'slurm_test.sh': ('test.py', [0, 1])}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf'^```{language}\n(.*?)^```', page.read_text(), re.MULTILINE | re.DOTALL)


def expanded(text: str, variables: dict[str, str]) -> Iterator[str]:
    """Yield the lines of a shell script, with its own variables and ``$(cat FILE)`` replaced."""
    for line in text.replace('\\\n', ' ').splitlines():
        line = re.sub(r'"?\$\(cat ([^)]+)\)"?', r'\1', line)
        line = re.sub(r'\$(\w+)', lambda match: variables.get(match[1], match[0]), line)
        for name, quoted, plain in re.findall(r"(?:^|; )([A-Z]+)=(?:'([^']*)'|(\S+))(?=;|$)", line):
            variables[name] = quoted or plain
        yield line


def commands() -> list[tuple[str, list[str]]]:
    """Return every command of the pages and the notebook: the name of the page, and the words."""
    found = []
    for page in PAGES:
        variables: dict[str, str] = {}
        for block in blocks(page, 'bash'):
            found += [(page.name, line) for line in expanded(block, variables)]
    for cell in nbformat.read(NOTEBOOK, 4).cells:
        if cell.source.startswith('!'):
            found += [(NOTEBOOK.name, line) for line in expanded(cell.source[1:], {})]
    # Without the libraries' own tools, and without the variables that are set before a command.
    split = [(page, shlex.split(line, comments=True)) for page, line in found if 'SITE' not in line]
    split = [(page, list(itertools.dropwhile(lambda word: '=' in word, words))) for page, words in split]
    return [(page, words) for page, words in split if words and words[0] != 'export']


def find_tool(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the path below ``tools/`` (or in the package) and the arguments, if the command runs a tool of ours."""
    if 'mmstvit' in words and words[0] != 'mim':
        words = words[words.index('mmstvit') + 1 :]
        return COMMANDS[words[0]], words[1:]
    for index, word in enumerate(words):
        if word in ('mmstvit.doctor', 'mmstvit.app'):
            return COMMANDS[word.partition('.')[2]], words[index + 1 :]
        if word.startswith('tools/'):
            tool, args = word.removeprefix('tools/'), words[index + 1 :]
            if tool in LAUNCHERS:
                tool, own = LAUNCHERS[tool]
                args = [arg for i, arg in enumerate(args) if i not in own]
            return tool, args
    return None


class Found(Exception):
    """Carries the parser of a tool out of its ``parse_args()``."""


@functools.cache
def parser_of(tool: str) -> argparse.ArgumentParser:
    def stop(self: argparse.ArgumentParser, *_args: object) -> None:
        raise Found(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Found) as found:
        patch.setattr(argparse.ArgumentParser, 'parse_args', stop)
        if tool == 'doctor.py':
            doctor.main([])
        elif tool == 'install_mmcv.py':
            install_mmcv.main([])
        elif tool == COMMANDS['app']:
            from mmstvit.app.__main__ import parse_args

            parse_args()
        else:
            module = load_tool(tool)
            getattr(module, 'parse_args', getattr(module, 'main', None))()
    return found.value.args[0]


TOOLS = [(page, words, *find_tool(words)) for page, words in commands() if find_tool(words)]


def test_every_command_is_one_of_ours_or_has_a_reason():
    others = [(page, words) for page, words in commands() if find_tool(words) is None]
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    for page, words in others:
        program = Path(words[1 if words[0] == 'python' else 0]).name
        if words[1:2] == ['-c']:
            compile(words[2], page, 'exec')
        elif program == 'make':
            assert not {word for word in words[1:] if '=' not in word} - targets, (page, words)
        else:
            assert program in NOT_RUN, (page, words)
    assert len(TOOLS) > 60


def test_every_option_exists(capsys):
    for page, words, tool, args in TOOLS:
        try:
            parser_of(tool).parse_args(args)
        except SystemExit:
            pytest.fail(f'{page}: {shlex.join(words)}\n{capsys.readouterr().err}')


def test_every_documented_tool_is_run_by_a_test():
    texts = [path.read_text() for path in (ROOT / 'tests').rglob('*.py') if path.name != Path(__file__).name]
    elsewhere = {COMMANDS['app'], COMMANDS['doctor']}  # tests/test_app, tests/test_doctor.py
    elsewhere |= {tool for page, _, tool, _ in TOOLS if page == NOTEBOOK.name}
    for tool in {tool for *_, tool, _ in TOOLS} - elsewhere:
        assert any(f"'{tool}'" in text for text in texts), tool


def test_every_config_and_every_key_exists():
    for page, words, _, args in TOOLS:
        configs = [arg for arg in words if re.match(r'configs/|mmstvit::', arg) and '+' not in arg]
        for name in configs:
            path = ROOT / 'configs' / name.removeprefix('configs/').removeprefix('mmstvit::')
            assert path.is_file(), (page, name)
        if configs and '--cfg-options' in args:
            cfg = Config.fromfile(path)
            for option in args[args.index('--cfg-options') + 1 :]:
                *parents, key = option.partition('=')[0].split('.')
                node = functools.reduce(lambda node, key: node[int(key) if key.isdigit() else key], parents, cfg)
                assert key in node or key in ('accumulative_counts', 'deploy'), (page, option)


def test_every_kind_is_in_the_tables_of_the_page_about_data():
    """``python docs/kinds.py`` refreshes the tables."""
    text = (ROOT / 'docs' / 'data.md').read_text()
    assert runpy.run_path(str(ROOT / 'docs' / 'kinds.py'))['replace_tables'](text) == text
    assert len(re.findall(r'^\|', text, re.MULTILINE)) >= len(KINDS) + 4
    for _, _, tool, args in TOOLS:
        check_kinds(
            value for option, value in itertools.pairwise(args) if option == '--ignore' and tool != 'new_config.py'
        )


def test_python_blocks_import_what_exists():
    imports = set()
    for page in PAGES:
        for block in blocks(page, 'python'):
            for node in ast.walk(ast.parse(block.replace(', ...)', ')'))):
                if isinstance(node, ast.ImportFrom) and node.module.startswith('mmstvit'):
                    imports.add(ast.unparse(node))
    assert len(imports) > 3
    exec('\n'.join(imports), {})


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub makes them."""
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r'^#+ (.*)$', text, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links(page):
    text = re.sub(r'^```.*?^```|`[^`\n]*`', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r'\]\(([^)\s]+)\)', text):
        if not link.startswith('http'):
            name, _, anchor = link.partition('#')
            target = page.parent / name if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_our_messages_in_troubleshooting_are_in_the_source():
    sources = ''.join(path.read_text() for path in (ROOT / 'mmstvit').rglob('*.py') if '.mim' not in path.parts)
    sources = re.sub(r"""['"]\s*\n\s*f?['"]""", '', sources)  # a message over several lines
    messages = re.findall(r'`error: ([^`]+)`', (ROOT / 'docs' / 'troubleshooting.md').read_text())
    assert len(messages) > 8
    for message in messages:
        for part in filter(None, (part.strip(' :,.') for part in message.split('…'))):
            assert part in sources, message


def test_a_config_of_swin_changes_as_documented(tmp_path):
    section = (ROOT / 'docs' / 'any_head.md').read_text().partition('## From Swin or ConvNeXt')[2]
    snippet = section.partition('```python\n')[2].partition('```')[0]
    (tmp_path / 'mine.py').write_text(snippet)
    with restored(tmp_path):
        cfg = read_config('mine.py', None)
        ours = read_config('mmstvit::mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco.py', None)
        assert cfg.sync_bn == ours.sync_bn
        assert cfg.optim_wrapper.paramwise_cfg == ours.optim_wrapper.paramwise_cfg
        cfg.model.backbone.init_cfg = ours.model.backbone.init_cfg = None
        assert cfg.model.backbone == ours.model.backbone
        assert cfg.model.neck.in_channels == ours.model.neck.in_channels
        assert cfg.optim_wrapper.optimizer.lr == ours.optim_wrapper.optimizer.lr


@pytest.mark.long
def test_the_pages_are_built_without_a_warning(tmp_path):
    command = [sys.executable, '-m', 'sphinx', '-q', '-W', '--keep-going', ROOT / 'docs', tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'PYTHONWARNINGS': 'ignore'})
    assert done.returncode == 0, done.stderr
    for page in [*PAGES[2:], NOTEBOOK]:
        assert (tmp_path / f'{page.stem}.html').is_file()
    assert 'id="mmstvit.STViT"' in (tmp_path / 'config_reference.html').read_text()


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom(monkeypatch):
    notebook = nbformat.read(NOTEBOOK, 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace('--train 400 --val 20', '--train 16 --val 2').replace(
            '--epochs 12', '--epochs 1'
        )
    monkeypatch.setenv('PATH', f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}')
    NotebookClient(notebook, timeout=400, kernel_name='python3').execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    assert len([output for output in outputs if {'image/png', 'image/jpeg'} & output.get('data', {}).keys()]) == 3
