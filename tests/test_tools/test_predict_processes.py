"""``torchrun tools/predict.py``: several processes write the results of one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmstvit.apis import predict

from ..helpers import ROOT
from ..test_datasets.tiny_data import draw, film, write
from .test_predict_again import done, results

pytestmark = [pytest.mark.long, pytest.mark.usefixtures('in_folder')]
LAUNCH = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node']


def launch(processes: int, *args: object) -> subprocess.Popen:
    command = [*LAUNCH, processes, ROOT / 'tools/predict.py', *args]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    pipe = subprocess.PIPE
    return subprocess.Popen(list(map(str, command)), stdout=pipe, stderr=pipe, text=True, env=environment)


def test_processes_share_the_inputs_and_go_on_in_another_number(checkpoints, in_folder):
    for i in range(60):
        write(in_folder / f'in/{i:02}.png', draw(i))
    (in_folder / 'in/07.png').write_text('text')
    film(in_folder / 'film.avi', 3)
    whole = predict(checkpoints['mmdet'], ['in', 'film.avi'], 'whole', score=0.1)
    arguments = (checkpoints['mmdet'], 'in', 'film.avi', '--out-dir', 'out', '--score', 0.1)
    process = launch(2, *arguments)
    while done() < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode
    assert error.count('predictions are complete in out/predictions.json. To go on: --continue') == 1
    assert 5 <= done() < 60
    process = launch(2, *arguments, '--continue')
    output, error = process.communicate(timeout=120)
    assert process.returncode == 1  # one image cannot be read
    assert error.count('skipped in/07.png: ') == 1
    assert f'{whole.count} predictions: ' in output
    assert results() == results('whole')
    assert len(list(Path('out').glob('.mmstvit-records.*'))) == 2
    predict(checkpoints['mmdet'], ['in', 'film.avi'], 'out', score=0.1, resume=True)
    assert results() == results('whole')


def test_an_error_ends_all_processes_with_one_message(checkpoints, in_folder):
    write(in_folder / 'a.png', draw(0))
    predict(checkpoints['mmpretrain'], ['a.png'], 'out')
    for arguments, message in {
        (checkpoints['mmpretrain'], 'a.png'): 'out holds results',
        ('gone.pth', 'a.png', '--force'): 'does not exist',
        (checkpoints['mmpretrain'], 'gone.png', '--force'): 'no input could be predicted',
    }.items():
        process = launch(2, *arguments, '--out-dir', 'out')
        _, error = process.communicate(timeout=120)
        assert process.returncode == 1
        assert sum(line.startswith('error: ') and message in line for line in error.splitlines()) == 1
    assert len(results()) == 2
