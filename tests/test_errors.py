"""Errors in code of the user's own keep their traceback."""

import importlib
import tempfile
from pathlib import Path

import pytest
from mmengine.config import Config

from mmstvit.command_line import user_errors
from mmstvit.engine.runner.factory import build_model
from mmstvit.errors import DataError, UserError

MODEL = """
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module(force=True)
class OwnModel(nn.Module):
    def __init__(self):
        super().__init__()
        read_width({RAISE})


def read_width(settings):
    return settings['width'] + 1
"""


@pytest.fixture
def message(tmp_path, monkeypatch):
    """Build a model inside of ``user_errors``; returns the message that ends the tool."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))

    def message(**model: object) -> str:
        with pytest.raises(SystemExit) as ended, user_errors():
            build_model(Config(dict(model=model, default_scope='mmpretrain')))
        return str(ended.value.code)

    return message


@pytest.mark.parametrize(('settings', 'error'), [('{}', 'KeyError'), ("{'width': None}", 'TypeError')])
def test_a_model_of_ones_own(message, tmp_path, settings, error):
    name = f'own_{error.lower()}'
    (tmp_path / f'{name}.py').write_text(MODEL.replace('{RAISE}', settings))
    importlib.import_module(name)
    said = message(type='OwnModel')
    assert said.startswith('error: the model of the config cannot be built: ')
    (log,) = (tmp_path / 'temporary').glob('*.log')
    assert said.endswith(f'The traceback is in {log}')
    text = Path(log).read_text()
    assert error in text and f'{name}.py' in text and "return settings['width'] + 1" in text


def test_a_model_of_ours_needs_no_traceback(message, tmp_path):
    assert 'huge' in message(type='ImageClassifier', backbone=dict(type='mmstvit.STViT', arch='huge'))
    assert not list((tmp_path / 'temporary').glob('*.log'))


@pytest.mark.parametrize('name', ['a.png\nerror: b', 'a.png\n', 'a\x1b[2J.png', '\r\n.png'])
def test_a_name_breaks_no_line_of_a_message(name):
    escaped = repr(name)[1:-1]
    error = UserError(f'{name} cannot be read.', f'Remove {name}!')
    assert str(error) == f'{escaped} cannot be read. Remove {escaped}!'
    error = DataError(f'Two faults:\n  1. {name} is empty.\n  2. {name} is large.', f'Remove {name}!')
    lines = ['Two faults:', f'  1. {escaped} is empty.', f'  2. {escaped} is large.', f' Remove {escaped}!']
    assert str(error).splitlines() == lines
