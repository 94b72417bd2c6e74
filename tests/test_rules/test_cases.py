"""train.py, before the first iteration, and verify_dataset.py refuse every defect of the tables, or warn of it."""

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from ..in_process import run_main
from ..test_datasets.tiny_data import LIBRARIES
from . import coco_cases, config_cases
from .case import FOLDER, Case, Model, good_config

TABLES = [coco_cases, config_cases]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working directory, with runs that end before the first iteration."""
    monkeypatch.setattr(Runner, 'train', lambda self: print('would train'))
    monkeypatch.setattr('mmengine.runner.runner.collect_env', dict)  # starts compilers to log their versions
    monkeypatch.setattr('yapf.yapflib.yapf_api.FormatCode', lambda code, **_: (code, False))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def verify(folder: Path, capsys) -> tuple[int, str]:
    """Run verify_dataset.py; returns its exit code and what it printed."""
    with pytest.raises(SystemExit) as done:
        run_main('misc/verify_dataset.py', 'mine.py', '--num-workers', 0, cwd=folder)
    printed = capsys.readouterr().out
    return (done.value.code, printed) if isinstance(done.value.code, int) else (1, printed + done.value.code)


def train(folder: Path, capsys) -> tuple[bool, str]:
    """Run train.py; returns True if it would train, and what it printed."""
    error = ''
    try:
        run_main('train.py', 'mine.py', cwd=folder)
    except SystemExit as done:
        error = str(done.code)
    printed = capsys.readouterr()
    text = error or printed.out + printed.err
    return 'would train' in text, text


def missing(words: tuple[str, ...], text: str) -> list[str]:
    return [word for word in words if word not in text]


@pytest.mark.parametrize('library', LIBRARIES)
def test_good_data_are_accepted(library, folder, capsys):
    good_config(library).dump('mine.py')
    code, report = verify(folder, capsys)
    assert code == 0 and '0 faults, 0 warnings' in report, report
    trains, log = train(folder, capsys)
    assert trains and 'WARNING' not in log, [line for line in log.splitlines() if 'WARNING' in line]
    for split in ('train', 'val'):
        assert any(f'{split}: 4' in line and '4 images' in line for line in log.splitlines()), log
        assert f'{split}: 4' in report


def test_a_test_is_refused_too(folder):
    cfg = good_config('mmdet')
    cfg.test_dataloader, cfg.test_evaluator, cfg.test_cfg = cfg.val_dataloader, cfg.val_evaluator, dict(type='TestLoop')
    cfg.dump('mine.py')
    torch.save(dict(state_dict=Model().state_dict()), 'own.pth')
    (FOLDER / 'val' / '2.jpg').unlink()
    with pytest.raises(SystemExit) as refused:
        run_main('test.py', 'mine.py', 'own.pth', cwd=folder)
    assert missing(('error: ', '2.jpg', 'test_dataloader.dataset'), str(refused.value.code)) == []
    assert not Path('work_dirs').exists()


@pytest.mark.parametrize('case', [case for table in TABLES for case in table.CASES], ids=lambda case: case.what)
def test_tools_agree(case: Case, folder, capsys):
    cfg = good_config(case.library)
    case.plant(cfg)
    cfg.dump('mine.py')
    code, report = verify(folder, capsys)
    trains, log = train(folder, capsys)
    refused = case.severity == 'fault'
    label = 'FAULT' if refused else 'warning'
    assert f'{label}  {case.kind}' in report, report
    assert missing(case.words, report) == [], report
    assert missing(case.words, log) == [], log[-2000:]
    assert (code, trains) == (int(refused), not refused), report + log[-2000:]
    if refused:
        assert log.startswith('error: ') and not Path('work_dirs').exists()
    if case.alone:
        assert report.count('  FAULT  ') == int(refused), report
