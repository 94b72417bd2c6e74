"""``torchrun tools/predict.py``: several processes write the results of one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmstvit.apis import predict

from ..fork_server import fork
from ..helpers import ROOT
from ..test_datasets.tiny_data import draw, film, write
from .test_predict_again import done, results

pytestmark = [pytest.mark.long, pytest.mark.usefixtures('in_folder')]


def test_processes_share_the_inputs_and_go_on_in_another_number(checkpoints, in_folder):
    for i in range(60):
        write(in_folder / f'in/{i:02}.png', draw(i))
    (in_folder / 'in/07.png').write_text('text')
    film(in_folder / 'film.avi', 3)
    whole = predict(checkpoints['mmdet'], ['in', 'film.avi'], 'whole', score=0.1)
    arguments = (checkpoints['mmdet'], 'in', 'film.avi', '--out-dir', 'out', '--score', 0.1)
    torchrun = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', 2]
    command = [*map(str, [*torchrun, ROOT / 'tools/predict.py', *arguments])]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    while done() < 5:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode
    assert error.count('predictions are complete in out/predictions.json. To go on: --continue') == 1
    assert 5 <= done() < 60
    rest = fork('predict.py', *arguments, '--continue', cwd=in_folder, processes=2, code=1)  # one image cannot be read
    assert rest.stderr.count('skipped in/07.png: ') == 1
    assert f'{whole.count} predictions: ' in rest.stdout
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
        ended = fork('predict.py', *arguments, '--out-dir', 'out', cwd=in_folder, processes=2, code=1)
        assert sum(line.startswith('error: ') and message in line for line in ended.stderr.splitlines()) == 1
    assert len(results()) == 2
