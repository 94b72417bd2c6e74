"""``tools/predict.py`` twice into one folder, after kills and full disks, and results that cannot be written."""

import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmstvit.apis import UserError, predict
from mmstvit.apis.predict.predictor import Picture, Predictor

from ..helpers import ROOT
from ..in_process import run_main
from ..test_datasets.tiny_data import draw, film, write

pytestmark = pytest.mark.usefixtures('in_folder')
SCORE = 0.1  # of an untrained detector
REST = ('mmseg', 'mmpretrain')


def results(folder: str = 'out') -> dict[str, bytes]:
    """Return all results of a folder, without what is hidden."""
    paths = (path for path in Path(folder).rglob('*') if path.is_file() and not path.name.startswith('.'))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def done(folder: str = 'out') -> int:
    return sum(path.read_text().count('"done"') for path in Path(folder).glob('.mmstvit-records.*'))


@pytest.mark.parametrize('library', ['mmdet', *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def test_a_killed_run_goes_on_with_what_is_missing(library, checkpoints, in_folder, monkeypatch):
    for i in range(24):
        write(in_folder / f'in/{i:02}.jpg', draw(i))
    options = {} if library == 'mmseg' else dict(score=SCORE)
    predict(checkpoints[library], ['in'], 'whole', **options)
    command = [sys.executable, str(ROOT / 'tools/predict.py'), checkpoints[library], 'in', '--out-dir', 'out']
    process = subprocess.Popen([*command, *(() if library == 'mmseg' else ('--score', str(SCORE)))])
    while done() < 3:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    with open('out/.mmstvit-records.0', 'ab') as records:
        records.write(b'{"source": "23.jpg", "res')  # cut off by the kill
    kept, predicted, original = done(), [], Predictor.predict
    assert 3 <= kept < 24
    with pytest.raises(UserError, match=r'out holds results.*--continue.*--force.*--out-dir'):
        predict(checkpoints[library], ['in'], 'out', **options)
    monkeypatch.setattr(Predictor, 'predict', lambda *args: predicted.append(1) or original(*args))
    summary = predict(checkpoints[library], ['in'], 'out', resume=True, **options)
    assert len(predicted) == 24 - kept
    assert summary.count == 24
    assert results() == results('whole')
    write(in_folder / 'in/00a.jpg', draw(99))  # a new image; its place is behind 00.jpg
    predict(checkpoints[library], ['in'], 'out', resume=True, **options)
    assert len(predicted) == 25 - kept
    if library == 'mmdet':
        names = [image['file_name'] for image in json.loads(Path('out/predictions.json').read_text())['images']]
        assert names == sorted(os.listdir('in'))


def test_a_full_disk_ends_with_one_line_and_loses_nothing(checkpoints, in_folder, capsys):
    for i in range(8):
        write(in_folder / f'in/{i}.png', draw(i, 64, 64, 3))
    predict(checkpoints['mmdet'], ['in'], 'whole', score=SCORE)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = Path('whole/.mmstvit-records.0').stat().st_size
    arguments = (checkpoints['mmdet'], 'in', '--out-dir', 'out', '--score', SCORE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, limit[1]))
    try:
        with pytest.raises(SystemExit, match=r'cannot be written to out: File too large.*--continue'):
            run_main('predict.py', *arguments, cwd=in_folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert 0 < done() < 8
    run_main('predict.py', *arguments, '--continue', cwd=in_folder)
    assert results() == results('whole')


def test_force_removes_results_and_nothing_of_the_user(checkpoints, in_folder):
    for name in ('x/a.png', 'b.png'):
        write(in_folder / 'in' / name, draw(0))
    for path in ('mine.txt', 'elsewhere/c.jpg'):
        (in_folder / path).parent.mkdir(exist_ok=True)
        (in_folder / path).write_text('mine')
    predict(checkpoints['mmseg'], ['in'], 'out')
    for path in ('out/notes.txt', 'out/pictures/x/mine.jpg', 'out/pictures/new.jpg'):
        Path(path).write_text('mine')
    Path('out/maps/link').symlink_to(in_folder)
    # What a stranger could have written.
    outside = ['../mine.txt', str(in_folder / 'mine.txt'), 'pictures/../notes.txt', 'maps/link/mine.txt', 'notes.txt']
    with open('out/.mmstvit-records.7', 'w') as records:
        records.write(json.dumps(dict(source='b.png', files=outside)) + '\n')
    (in_folder / 'in/b.png').unlink()
    write(in_folder / 'in/new.png', draw(1))
    summary = predict(checkpoints['mmseg'], ['in'], 'out', force=True)
    assert summary.skipped == {'new.png': 'out/pictures/new.jpg exists, and is not a result of it'}
    assert set(results()) == {'legend.csv', 'maps/x/a.png', 'pictures/x/a.jpg', 'notes.txt', 'pictures/x/mine.jpg',
                              'pictures/new.jpg'}  # fmt: skip
    assert Path('mine.txt').read_text() == Path('out/notes.txt').read_text() == 'mine'


def test_force_keeps_the_results_if_no_input_can_be_read(checkpoints, in_folder):
    write(in_folder / 'a.png', draw(0))
    predict(checkpoints['mmpretrain'], ['a.png'], 'out')
    before = results()
    Path('text.png').write_text('text')
    for inputs in (['text.png'], ['gone.png']):
        with pytest.raises(UserError, match='no input could be predicted'):
            predict(checkpoints['mmpretrain'], inputs, 'out', force=True)
    assert results() == before


def test_other_settings_or_damaged_records_do_not_go_on(checkpoints, in_folder):
    write(in_folder / 'a.png', draw(0))
    predict(checkpoints['mmpretrain'], ['a.png'], 'out', resume=True)  # nothing is there: as without it
    with pytest.raises(UserError, match='these differ: score'):
        predict(checkpoints['mmpretrain'], ['a.png'], 'out', score=0.5, resume=True)
    with pytest.raises(UserError, match='these differ: checkpoint'):
        predict(checkpoints['mmseg'], ['a.png'], 'out', resume=True)
    sound = Path('out/.mmstvit-records.0').read_text()
    for content in (
        '{"files": 3}\n',
        '{"source": "", "files": [""]}\n',
        '{"source": "", "files": [null]}\n',
        '{"source": "a.png", "result": 5}\n',
        '{"source": "a.png", "done": [1]}\n',
        '[]\n',
        'x\n',
        '{"a":' * 100_000 + '\n',
        '\x00\n',
    ):
        Path('out/.mmstvit-records.0').write_text(content)
        for option in ('resume', 'force'):
            with pytest.raises(UserError, match='damaged'):
                predict(checkpoints['mmpretrain'], ['a.png'], 'out', **{option: True})
    lines = [dict(settings=json.loads(sound.splitlines()[0])['settings']), dict(source='a.png', result={})]
    lines += [dict(source='a.png', done={})]
    lines += [line for line in map(json.loads, sound.splitlines()) if 'predictions.csv' in line.get('files', ())]
    Path('out/.mmstvit-records.0').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))
    with pytest.raises(UserError, match=r"the records in out are damaged \(KeyError: 'cells'\)"):
        predict(checkpoints['mmpretrain'], ['a.png'], 'out', resume=True)
    for name in ('pictures', 'pictures/\\u0000/a', 'pictures/\\ud800/a', f'pictures/{"a" * 5000}/b'):
        Path('out/.mmstvit-records.0').write_text(f'{{"source": "a.png", "files": ["{name}"]}}\n')
        with pytest.raises(UserError, match=r'which the records in out name, cannot be removed .*Remove the folder'):
            predict(checkpoints['mmpretrain'], ['a.png'], 'out', force=True)
    assert len(results()) == 2


def test_links_in_the_place_of_partial_files_are_not_followed(checkpoints, in_folder):
    for name in ('a', 'b'):
        write(in_folder / f'in/{name}.png', draw(0))
    Path('mine.txt').write_text('mine')
    predict(checkpoints['mmpretrain'], ['in'], 'out')
    before = results()
    for name in ('.mmstvit-predictions.csv.partial', '.mmstvit-.mmstvit-records.0.partial'):
        Path('out', name).symlink_to('../mine.txt')
    predict(checkpoints['mmpretrain'], ['in'], 'out', resume=True)
    assert results() == before and Path('mine.txt').read_text() == 'mine'


@pytest.mark.parametrize('option', ['resume', 'force'])
def test_links_in_a_folder_of_results_lead_to_no_file_of_the_user(checkpoints, in_folder, option):
    write(in_folder / 'in/a.png', draw(0))
    predict(checkpoints['mmpretrain'], ['in'], 'out')
    lines = Path('out/.mmstvit-records.0').read_text().splitlines(keepends=True)
    Path('out/.mmstvit-records.0').write_text(''.join(line for line in lines if '"done"' not in line))
    Path('photos').mkdir()
    for path in ('mine.txt', 'photos/a.jpg'):
        Path(path).write_text('mine')
    shutil.rmtree('out/pictures')
    Path('out/pictures').symlink_to('../photos')
    Path('out/.mmstvit-results').unlink()
    Path('out/.mmstvit-results').symlink_to('../mine.txt')
    with pytest.raises(UserError, match=r'out/pictures/a\.jpg exists, and is not a result of it'):
        predict(checkpoints['mmpretrain'], ['in'], 'out', **{option: True})
    assert Path('mine.txt').read_text() == Path('photos/a.jpg').read_text() == 'mine'


LOCK = """
import fcntl
file = open('out/.mmstvit-lock', 'a+')
fcntl.lockf(file, fcntl.LOCK_EX)
print('locked', flush=True)
input()
"""


def test_a_second_run_in_the_folder_is_refused(checkpoints, in_folder):
    write(in_folder / 'a.png', draw(0))
    predict(checkpoints['mmpretrain'], ['a.png'], 'out')
    before = results()
    other = subprocess.Popen([sys.executable, '-c', LOCK], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other.stdout.readline()
    for options in (dict(resume=True), dict(force=True)):
        with pytest.raises(UserError, match=r'another run writes to out: .*--out-dir'):
            predict(checkpoints['mmpretrain'], ['a.png'], 'out', **options)
    other.communicate(b'\n')
    assert results() == before
    assert predict(checkpoints['mmpretrain'], ['a.png'], 'out', resume=True).count == 1
    assert not Path('out/.mmstvit-lock').exists()


def test_frames_that_were_skipped_stay_named(checkpoints, in_folder, monkeypatch):
    film(in_folder / 'in/a.avi', 5)
    original = Predictor.prepare

    def fail(self: Predictor, picture: Picture) -> dict:
        if picture.name == 'a.avi/000003':
            raise ValueError('odd')
        return original(self, picture)

    monkeypatch.setattr(Predictor, 'prepare', fail)
    for again in ('resume', 'resume', 'force'):  # the video is complete after the first run
        summary = predict(checkpoints['mmpretrain'], ['in/a.avi'], 'out', **{again: True})
        assert (summary.count, summary.skipped) == (4, {'a.avi/000003': 'ValueError: odd'})
    assert cv2.VideoCapture('out/pictures/a.mp4').get(cv2.CAP_PROP_FRAME_COUNT) == 4


def test_a_video_that_is_cut_off_is_named(checkpoints, in_folder):
    film(in_folder / 'in/a.avi', 20)
    content = Path('in/a.avi').read_bytes()
    Path('in/a.avi').write_bytes(content[: len(content) // 2])
    for again in (False, True):
        summary = predict(checkpoints['mmpretrain'], ['in/a.avi'], 'out', resume=again)
        ((name, reason),) = summary.skipped.items()
        assert name == f'a.avi/{summary.count:06}' and 5 < summary.count < 12
        assert 'it has 20 frames' in reason


def test_an_interrupted_video_begins_again(checkpoints, in_folder, monkeypatch, capsys):
    film(in_folder / 'in/a.avi', 3)
    film(in_folder / 'in/b.avi', 4)
    predict(checkpoints['mmpretrain'], ['in/a.avi', 'in/b.avi'], 'whole')
    predicted, original = [], Predictor.predict

    def interrupted(self: Predictor, batch: list) -> list:
        predicted.append(batch)
        if len(predicted) == 5:
            signal.raise_signal(signal.SIGINT)
        return original(self, batch)

    monkeypatch.setattr(Predictor, 'predict', interrupted)
    arguments = (checkpoints['mmpretrain'], 'in/a.avi', 'in/b.avi', '--out-dir', 'out')
    with pytest.raises(SystemExit):
        run_main('predict.py', *arguments, cwd=in_folder)
    assert '5 predictions are complete' in capsys.readouterr().err
    assert cv2.VideoCapture('out/pictures/b.mp4').get(cv2.CAP_PROP_FRAME_COUNT) == 2
    run_main('predict.py', *arguments, '--continue', cwd=in_folder)
    assert len(predicted) == 9
    assert results() == results('whole')


def test_what_cannot_be_written_is_named_and_the_rest_goes_on(checkpoints, in_folder):
    film(in_folder / 'in/fast.avi', 3)
    content = bytearray(Path('in/fast.avi').read_bytes())
    place = content.index(b'strh') + 28  # scale and rate in the header of the stream
    content[place : place + 8] = struct.pack('<II', 1, 90_000)
    Path('in/fast.avi').write_bytes(content)
    write(in_folder / 'in/wide.png', np.zeros((2, 65_501), np.uint8))
    long = 'n' * 251
    for name in (f'{long}.jpg', f'{long}.png', 'a.png', 'b.jpg.bmp', 'b.jpg', 'b.png'):
        write(in_folder / 'in' / name, draw(0))
    write(in_folder / 'in/a.jpg/c.png', draw(0))  # the picture of a.png has the name of its folder
    (in_folder / 'in/linked.jpg').symlink_to(in_folder / 'in/a.jpg')
    (in_folder / 'in/nowhere.png').symlink_to(in_folder / 'gone.png')
    options = {'test_dataloader.dataset.pipeline.1.keep_ratio': False}
    inputs = ['in', 'in/fast.avi', 'in/nowhere.png', 'in/a.png/']
    summary = predict(checkpoints['mmpretrain'], inputs, 'out', cfg_options=options)
    skipped = {'a.png', f'{long}.jpg', f'{long}.png', 'wide.png', 'fast.avi', 'nowhere.png'}
    assert (summary.count, set(summary.skipped)) == (5, skipped)
    for name, reason in {
        'a.png': 'out/pictures/a.jpg exists',
        f'{long}.png': 'File name too long',
        'wide.png': 'its side of 65501 pixels',
        'fast.avi': '64 × 48 pixels with 90000 frames per second',
        'nowhere.png': 'does not exist',
    }.items():
        assert reason in summary.skipped[name]
    assert sorted(results()) == ['pictures/a.jpg/c.jpg', 'pictures/b.jpg.bmp.jpg', 'pictures/b.jpg.jpg',
                                 'pictures/b.png.jpg', 'pictures/linked.jpg/c.jpg', 'predictions.csv']  # fmt: skip
