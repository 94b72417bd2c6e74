"""Command lines: settings of configs, numbers, and errors as the tools print them."""

import argparse
import os
import shlex
import subprocess
import sys

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from mmstvit.command_line import (
    add_cfg_options,
    count,
    make_parser,
    order_arguments,
    order_config,
    positive,
    user_errors,
)
from mmstvit.errors import DataError


@pytest.mark.parametrize('pair', ['model.backbone.arch', '"a.b"=1', "'a'=1", 'a..b=1', '=1', 'a b=1'])
def test_a_setting_that_cannot_be_one_is_refused(capsys, pair):
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    with pytest.raises(SystemExit) as done:
        parser.parse_args(['--cfg-options', pair])
    assert done.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert '--cfg-options' in message and pair.removesuffix('=1') in message


def test_settings_are_read_as_mmengine_reads_them():
    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    pairs = ['a.b_1.0.c=1', 'custom-key=[1,2]', 'path=a=b']
    assert parser.parse_args(['--cfg-options', *pairs]).cfg_options == {
        'a.b_1.0.c': 1, 'custom-key': [1, 2], 'path': 'a=b'
    }  # fmt: skip


@pytest.mark.parametrize(('kind', 'text'), [(positive, '0'), (positive, '1.5'), (count, '-1'), (count, 'x')])
def test_a_number_below_the_minimum_is_refused(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match=rf'whole number of [01] or more, but got {text}'):
        kind(text)
    assert (positive('1'), count('0')) == (1, 0)


@pytest.mark.parametrize(
    ('typed', 'meant'),
    [
        (['epoch_1.pth', 'a.jpg'], ['epoch_1.pth', 'a.jpg']),
        (['a.jpg', 'b', 'Model.ONNX'], ['Model.ONNX', 'a.jpg', 'b']),
        (['photos', 'config.py'], ['config.py', 'photos']),
        (['model.pth', 'other.pth'], ['model.pth', 'other.pth']),
        (['weights', 'photos'], ['weights', 'photos']),
    ],
)
def test_a_model_may_be_typed_last(typed, meant):
    model, inputs = order_arguments(typed[0], typed[1:])
    assert [model, *inputs] == meant


def test_config_and_checkpoint_may_be_exchanged():
    for typed in (['config.py', 'a.pth'], ['a.pth', 'config.py']):
        args = order_config(argparse.Namespace(config=typed[0], checkpoint=typed[1]))
        assert (args.config, args.checkpoint) == ('config.py', 'a.pth')


def test_a_reader_of_the_output_may_end_early():
    program = 'from mmstvit.command_line import user_errors\nwith user_errors():\n    print(100_000 * "x")'
    command = f'{shlex.quote(sys.executable)} -c {shlex.quote(program)} | head -c 1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ('x', '')


@pytest.mark.parametrize(
    ('given', 'expected'),
    [({}, '1000'), ({'GOMP_SPINCOUNT': '7'}, '7'), ({'OMP_WAIT_POLICY': 'active'}, None)],
    ids=['not set', 'set', 'another setting'],
)
def test_threads_of_tools_spin_briefly(given, expected, monkeypatch):
    for name in ('GOMP_SPINCOUNT', 'OMP_WAIT_POLICY'):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    make_parser('Do something.')
    assert os.environ.get('GOMP_SPINCOUNT') == expected


def test_torchrun_shows_the_message_last(tmp_path, monkeypatch):
    file = str(tmp_path / 'error.json')
    monkeypatch.setenv('TORCHELASTIC_ERROR_FILE', file)
    with pytest.raises(SystemExit), user_errors():
        raise DataError('no "image" is\n  large', 'Name another.')
    first = ProcessFailure(local_rank=0, pid=1, exitcode=1, error_file=file)
    second = ProcessFailure(local_rank=1, pid=2, exitcode=1, error_file='')  # says nothing
    lines = str(ChildFailedError('train.py', {0: first, 1: second})).splitlines()
    assert 'traceback : error: no "image" is' in lines[-4] and 'large' in lines[-3] and 'Name another.' in lines[-2]
