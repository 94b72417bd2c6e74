"""Remedies name tools by commands that work in a checkout and in a wheel."""

import re
import shlex
from pathlib import Path

import pytest

from mmstvit import dependencies

from .helpers import ROOT


@pytest.mark.parametrize('tool', ['model_converters/stvit_to_mm.py', 'dist_train.sh'])
def test_tools_are_named_where_they_are(tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = 'bash' if tool.endswith('.sh') else 'python'
    assert dependencies.tool_command(tool) == f'{program} tools/{tool}'
    assert (ROOT / 'tools' / tool).exists()
    package = tmp_path / 'site-packages' / 'mmstvit'
    monkeypatch.setattr(dependencies, '_PACKAGE', package)
    assert dependencies.tool_command(tool) == f'{program} {package}/.mim/tools/{tool}'
    assert dependencies.tool_command('misc/verify_dataset.py') == 'mmstvit verify'


def test_the_commands_for_mmcv_are_those_of_the_installation_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / 'docs' / 'install.md').read_text()
    lines = re.search(r'^## 3\..*?```bash\n(.*?)```', page, re.MULTILINE | re.DOTALL)[1].splitlines()
    monkeypatch.setattr(dependencies, '_PACKAGE', tmp_path / 'site-packages' / 'mmstvit')
    commands = dependencies._mmcv_command().split(' && ')
    assert [*map(shlex.split, commands)] == [*map(shlex.split, lines[-len(commands) :])]
