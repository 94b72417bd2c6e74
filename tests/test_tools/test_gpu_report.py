"""``tools/misc/gpu_report.py`` on a machine without a GPU: its error, and a report of short steps."""

import sys

import pytest
import torch

from ..helpers import ROOT, load_tool


@pytest.fixture(scope='module')
def gpu_report():
    return load_tool('misc/gpu_report.py')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_without_a_gpu(gpu_report, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, 'argv', ['gpu_report.py', '--work-dir', str(tmp_path / 'gpu')])
    with pytest.raises(SystemExit, match='finds no CUDA GPU'):
        gpu_report.main()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('code', 'words'), [(0, '2 of 2 steps passed.'), (3, 'Failed: second.')])
def test_report(gpu_report, tmp_path, code, words):
    steps = [('first', ['echo', 'one']), ('second', ['sh', '-c', f'echo two >&2; exit {code}'])]
    assert gpu_report.write_report(tmp_path / 'report.md', 'NVIDIA X', steps) == (not code)
    report = (tmp_path / 'report.md').read_text()
    assert not [part for part in ('NVIDIA X', '| first | passed |', 'one', 'two', words) if part not in report]


def test_every_step_names_files_that_exist(gpu_report, tmp_path):
    steps = dict(gpu_report.list_steps(tmp_path, 2))
    files = [part for command in steps.values() for part in command if part.startswith(('tools/', 'configs/'))]
    assert len(files) >= 2 * len(gpu_report.FAMILIES) and all((ROOT / file).is_file() for file in files)
    assert 'train: two processes' in steps and 'train: two processes' not in dict(gpu_report.list_steps(tmp_path, 1))
