"""``tools/misc/setup_env.py`` and ``fill_env.py``: an environment that is ready, those of others, and errors."""

import ast
import fcntl
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from mmstvit import install_mmcv

from ..helpers import ROOT, load_tool

TOOL = ROOT / 'tools' / 'misc' / 'setup_env.py'


@pytest.fixture(scope='module')
def setup_env():
    return load_tool('misc/setup_env.py')


@pytest.fixture(scope='module')
def fill_env():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOL.parent)
        return load_tool('misc/fill_env.py')


def test_a_ready_environment_needs_no_work(setup_env):
    if not setup_env.is_ready(Path(sys.prefix)):
        pytest.skip('this environment was not made by make from these files')
    command = ['make', '--no-print-directory', 'env', f'VENV={sys.prefix}']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_the_stamp_follows_the_inputs_and_the_packages(setup_env, monkeypatch, tmp_path):
    pins, packages = tmp_path / 'tested.txt', tmp_path / 'lib' / 'python3.11' / 'site-packages'
    packages.mkdir(parents=True)
    pins.write_text('torch==1')
    monkeypatch.setattr(setup_env, 'INPUTS', [pins])
    seen = [setup_env.fingerprint(tmp_path)]
    pins.write_text('torch==2')
    seen.append(setup_env.fingerprint(tmp_path))
    os.utime(packages, ns=(0, 1))  # as after pip install
    seen.append(setup_env.fingerprint(tmp_path))
    assert len(set(seen)) == 3


def test_pins_cover_what_is_installed(setup_env, fill_env):
    pins = fill_env.read_pins()
    assert {*fill_env.BASE, *fill_env.STACK} < set(pins)
    assert pins[install_mmcv.NAME] == install_mmcv.VERSION
    lines = [line for line in setup_env.PINS.read_text().splitlines() if line and not line.startswith('#')]
    assert len(lines) == len(pins)


def write_wheel(folder: Path, name: str, version: str) -> None:
    """Write a wheel with an empty module."""
    module = name.replace('-', '_').removeprefix('onedl_').replace('detection', 'det').replace('segmentation', 'seg')
    stem = f'{name.replace("-", "_")}-{version}'
    files = {
        f'{module}.py': '',
        f'{stem}.dist-info/METADATA': f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n',
        f'{stem}.dist-info/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
    }
    with zipfile.ZipFile(folder / f'{stem}-py3-none-any.whl', 'w') as archive:
        for path, text in files.items():
            archive.writestr(path, text)
        archive.writestr(f'{stem}.dist-info/RECORD', ''.join(f'{path},,\n' for path in files))


@pytest.mark.long
def test_what_is_added_to_an_environment(fill_env, monkeypatch, tmp_path):
    """By pip, from an index of stand-ins."""
    index = tmp_path / 'index'
    index.mkdir()
    pins = fill_env.read_pins()
    for name, version in [*pins.items(), ('mmdet', '3.3.0'), ('numpy', '1.26.4')]:
        if name != 'pip':
            write_wheel(index, name, version)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    monkeypatch.setenv('PIP_FIND_LINKS', str(index))
    venv.create(tmp_path / 'env', with_pip=True)

    def run(code: str) -> str:
        """Run code in the environment, whose pip is good enough."""
        code = f'import sys; sys.path.append({str(TOOL.parent)!r}); from fill_env import *; {code}'
        command = [tmp_path / 'env' / 'bin' / 'python', '-I', '-c', code]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout

    def add(ours: bool) -> tuple[str, dict[str, str]]:
        code = f'pins = read_pins() | dict(pip=installed()["pip"]); add_packages(pins, {ours}); print(installed())'
        printed, _, have = run(code).strip().rpartition('\n')
        return printed, ast.literal_eval(have)

    run('pip("install", "mmdet==3.3.0", "numpy==1.26.4")')
    printed, have = add(ours=False)
    assert have['numpy'] == '1.26.4' and have['torch'] == pins['torch'] and have['setuptools'] == pins['setuptools']
    assert 'onedl-mmsegmentation' in have and 'hypothesis' in have and install_mmcv.NAME not in have
    assert 'onedl-mmdetection' not in have and have['mmdet'] == '3.3.0'  # the two overwrite each other
    assert 'keeping the installed mmdet' in printed
    _, have = add(ours=True)  # as if this tool had made it
    assert have['numpy'] == pins['numpy']


class TestErrors:
    @pytest.fixture
    def start(self, tmp_path):
        """Start the tool for an environment."""
        env = {**os.environ, 'MMSTVIT_WHEEL_DIR': str(tmp_path / 'wheels'), 'PIP_NO_INDEX': '1', 'PIP_FIND_LINKS': ''}
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        return lambda folder: subprocess.Popen([sys.executable, TOOL, '--venv', folder], env=env, **pipes)

    def test_a_folder_of_somebody_else_is_left_alone(self, start, tmp_path):
        (tmp_path / 'thesis').mkdir()
        (tmp_path / 'thesis' / 'chapter.txt').write_text('mine')
        process = start(tmp_path / 'thesis')
        _, error = process.communicate(timeout=60)
        assert process.returncode == 1
        assert f'{tmp_path / "thesis"} is not empty' in error and 'VENV=' in error
        assert [p.name for p in (tmp_path / 'thesis').iterdir()] == ['chapter.txt']

    def test_a_file_is_no_environment(self, start, tmp_path):
        file = tmp_path / 'file'
        file.write_text('mine')
        _, error = start(file).communicate(timeout=60)
        assert f'error: {file} is a file' in error and 'Traceback' not in error and file.read_text() == 'mine'

    def test_two_at_once(self, setup_env, start, tmp_path):
        with open(setup_env.PINS, 'r+') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            process = start(Path(__file__).parent)
            assert process.stdout.readline() == '[setup] waiting for another set-up\n'
        assert 'is not empty and not a Python environment' in process.communicate(timeout=60)[1]

    @pytest.mark.parametrize('version', [(3, 9, 1), (3, 13, 0)])
    def test_other_pythons(self, setup_env, version):
        with pytest.raises(SystemExit, match=r'supported are 3\.10 to 3\.12.*PYTHON='):
            setup_env.check_python(version, 'python')

    @pytest.mark.long
    def test_an_interrupted_creation_and_a_pip_that_fails(self, setup_env, start, tmp_path):
        folder = tmp_path / 'venv'
        folder.mkdir()
        for name in (setup_env.MARKER, setup_env.STAMP, 'half'):
            (folder / name).touch()
        process = start(folder)
        assert 'error: pip failed: ' in process.communicate(timeout=120)[1] and process.returncode == 1
        assert subprocess.run([folder / 'bin' / 'python', '-c', 'import pip']).returncode == 0
        assert (folder / setup_env.MARKER).exists() and not (folder / setup_env.STAMP).exists()
        assert not (folder / 'half').exists()
