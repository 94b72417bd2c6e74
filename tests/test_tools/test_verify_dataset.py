"""``verify_dataset.py`` as a command: what it prints and writes, its exit code, and commands it refuses."""

import json
import sys

import pytest

from ..helpers import ROOT, load_tool
from ..test_datasets.tiny_data import COUNT, LIBRARIES, images, make_config

verify_dataset = load_tool('misc/verify_dataset.py')


@pytest.fixture
def main(monkeypatch, capsys):
    """Run the tool in this process; returns the exit code, what it printed, and its error message."""

    def run(*args: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, 'argv', ['verify_dataset.py', *map(str, args)])
        with pytest.raises(SystemExit) as done:
            verify_dataset.main()
        captured = capsys.readouterr()
        if isinstance(done.value.code, str):  # what Python prints as it ends, with exit code 1
            return 1, captured.out, done.value.code
        return done.value.code, captured.out, captured.err

    return run


@pytest.fixture(params=LIBRARIES)
def library(request):
    return request.param


@pytest.fixture
def config(library, tmp_path):
    make_config(library, tmp_path / 'data').dump(tmp_path / 'config.py')
    return tmp_path / 'config.py'


def test_good_data(main, config, tmp_path):
    code, out, _ = main(config, '--num-workers', 0, '--out', tmp_path / 'report.json')
    assert code == 0 and '0 faults, 0 warnings' in out
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['config'] == str(config) and report['faults'] == report['warnings'] == 0
    assert {name: split['images'] for name, split in report['splits'].items()} == {'train': COUNT, 'val': COUNT}


def test_faults_are_listed_written_and_an_exit_code(main, config, library, tmp_path):
    broken = images(library, tmp_path / 'data', 'val')[1]
    broken.write_bytes(b'')
    code, out, _ = main(config, '--num-workers', 0, '--out', tmp_path / 'report.json')
    assert code == 1 and f'FAULT  unreadable image: 1\n    {broken}: it is empty (0 bytes)' in out
    (fault,) = json.loads((tmp_path / 'report.json').read_text())['splits']['val']['faults']
    assert fault == dict(kind='unreadable image', path=str(broken), message='it is empty (0 bytes)', warning=False)
    assert main(config, '--num-workers', 0, '--split', 'train')[0] == 0


def test_warnings_are_no_reason_to_fail(main, config, library, tmp_path):
    first, second, *_ = images(library, tmp_path / 'data', 'train')
    second.write_bytes(first.read_bytes())
    code, out, _ = main(config, '--num-workers', 0)
    assert code == 0 and 'warning  same content: 1' in out


@pytest.mark.parametrize('library', ['mmpretrain'], indirect=True)
@pytest.mark.parametrize(
    ('args', 'words'),
    [
        (['--split', 'test'], 'the config has no test_dataloader'),
        (['--num-workers', '-1'], '--num-workers must be 0 or more, but got -1'),
        (['--show', '-1'], '--show must be 0 or more, but got -1'),
        (['--out', 'nowhere/report.json'], '--out nowhere/report.json cannot be written'),
        (['--out', '.'], '--out . cannot be written'),
        (['--cfg-options', 'train_dataloader.dataset.data_root=nowhere'], 'nowhere does not exist'),
        (['--cfg-options', 'default_scope=mmpose'], 'default_scope'),
    ],
)
def test_bad_commands_are_refused_in_one_line(main, config, args, words):
    if 'default_scope=mmpose' in args:
        config.write_text(config.read_text().replace("'mmpretrain'", "'mmpose'"))
        args = []
    code, out, error = main(config, *args)
    assert (code, out) == (1, '') and error.startswith('error: ') and words in error and '\n' not in error


@pytest.mark.parametrize('args', [[], ['x.py', '--split', 'all'], ['x.py', '--num-workers', 'two']])
def test_what_is_no_command_is_refused_by_the_parser(main, args):
    code, _, error = main(*args)
    assert code == 2 and 'usage:' in error


def test_an_absent_config(main):
    assert 'none.py does not exist' in main('none.py')[2]


def test_the_bundled_scenes_are_good(tool, workspace):
    """As a user runs it, in two processes."""
    config = ROOT / 'configs' / 'mask_rcnn' / 'mask-rcnn_stvit-nano_fpn_scenes.py'
    done = tool('misc/verify_dataset.py', config, '--num-workers', 2, cwd=workspace)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 'test: test_dataloader.dataset: the same data as val_dataloader.dataset' in done.stdout
    assert '0 faults, 0 warnings' in done.stdout


@pytest.mark.parametrize(
    ('name', 'count'),
    [
        ('mask_rcnn/mask-rcnn_stvit-small_fpn_1x_coco', 16),
        ('upernet/stvit-small_upernet_8xb2-160k_ade20k-512x512', 16),
        ('imagenet/stvit-small_8xb128_in1k', 1000),
    ],
)
def test_the_recipes_data_sets(main, trees, monkeypatch, tmp_path, name, count):
    """COCO, ADE20K and ImageNet, a few images in their layouts; for ImageNet the same ones again and again."""
    monkeypatch.chdir(trees)
    out = tmp_path / 'report.json'
    code, printed, _ = main(ROOT / 'configs' / f'{name}.py', '--num-workers', 0, '--split', 'train', '--out', out)
    assert code == 0, printed
    split = json.loads(out.read_text())['splits']['train']
    assert split['images'] == count <= split['annotations']
