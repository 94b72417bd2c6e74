"""Remedies name tools by commands that work in a checkout and in a wheel."""

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


def test_mmcv_is_installed_by_a_command_of_ours() -> None:
    program, name = dependencies.CORE['mmcv'][1].split()
    assert program == 'mmstvit' and name in dependencies.COMMANDS
    assert dependencies.reinstall('mmstvit install-mmcv') == 'mmstvit install-mmcv --force'
    assert dependencies.reinstall('pip install x') == 'pip install --force-reinstall x'
