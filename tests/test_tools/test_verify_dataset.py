"""``verify_dataset.py`` as a command: its output, exit code, and invalid arguments."""

import functools
import json

import pytest

from ..helpers import config_path
from ..test_datasets.tiny_data import COUNT, images, make_config


@pytest.fixture
def main(call):
    return functools.partial(call, 'misc/verify_dataset.py')


@pytest.fixture
def config(tmp_path):
    make_config('mmpretrain', tmp_path / 'data').dump(tmp_path / 'config.py')
    return tmp_path / 'config.py'


def test_good_data(main, config, tmp_path):
    """The rules are tried with all libraries in ``test_rules``."""
    code, out, _ = main(config, '--num-workers', 0, '--out', tmp_path / 'report.json')
    assert code == 0 and '0 faults, 0 warnings' in out
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['config'] == str(config) and report['faults'] == report['warnings'] == 0
    assert [line[: line.index(':') + 3] for line in report['used']] == [f'train: {COUNT}', f'val: {COUNT}']


def test_faults_and_warnings(main, config, tmp_path):
    """Both are printed and written with a remedy; only faults change the exit code."""
    first, second, *_ = images('mmpretrain', tmp_path / 'data', 'train')
    second.write_bytes(first.read_bytes())
    broken = images('mmpretrain', tmp_path / 'data', 'val')[1]
    broken.write_bytes(b'')
    code, out, _ = main(config, '--num-workers', 0, '--out', tmp_path / 'report.json')
    assert code == 1
    assert 'FAULT  unreadable file (val): 1\n' in out and 'Remedy: Repair the file' in out
    assert f'      {broken}: the file is empty (0 bytes)\n' in out
    finding, _ = json.loads((tmp_path / 'report.json').read_text())['findings']
    assert (finding['kind'], finding['severity'], finding['count']) == ('unreadable file', 'fault', 1)
    assert finding['values'] == [f'{broken}: the file is empty (0 bytes)'] and finding['remedy']
    code, out, _ = main(config, '--num-workers', 0, '--split', 'train')
    assert code == 0 and 'warning  same content (train): 1' in out


@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--out', '.'], '--out . cannot be written'),
        (['--out', '/dev/full'], '--out /dev/full cannot be written'),
        (['--out', __file__], 'exists, and is not a report'),
        (['--cfg-options', 'train_dataloader.dataset.data_root=nowhere'], 'nowhere does not exist'),
    ],
)
def test_invalid_arguments(main, config, args, words):
    code, out, error = main(config, *args)
    assert (code, out) == (1, '') and error.startswith('error: ') and words in error and '\n' not in error


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        ('mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco', 16),
        ('upernet/stvit-small_upernet_8xb2-160k_ade20k-512x512', 16),
        ('imagenet/stvit-small_8xb128_in1k', 1000),
    ],
)
def test_data_sets_of_the_recipes(main, trees, monkeypatch, tmp_path, name, count):
    """A few images in the layouts of COCO, ADE20K and ImageNet."""
    monkeypatch.chdir(trees)
    out = tmp_path / 'report.json'
    code, printed, _ = main(config_path(name), '--num-workers', 0, '--split', 'train', '--out', out)
    assert code == 0, printed
    (line,) = json.loads(out.read_text())['used']
    assert f' {count} images' in line
