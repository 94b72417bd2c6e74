"""``tools/misc/setup_env.py``: an environment that is ready, those of others, kept wheels, and errors."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch

from ..helpers import ROOT, load_tool

TOOL = ROOT / 'tools' / 'misc' / 'setup_env.py'


@pytest.fixture(scope='module')
def setup_env():
    return load_tool('misc/setup_env.py')


@pytest.fixture
def env(setup_env, monkeypatch, tmp_path):
    """This environment, as if somebody else had made it; ``env.calls`` has what pip would be asked for."""
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path / 'wheels'))
    env = setup_env.Environment(Path(sys.prefix))
    env.marker = tmp_path / 'marker'
    env.calls = []
    monkeypatch.setattr(env, 'pip', lambda *args: env.calls.append(args))
    monkeypatch.setattr(env, 'runs', lambda code: 'find_spec("mmdet")' in code or 'find_spec' not in code)
    # Without a process that imports torch.
    kind = 'cuda' if torch.cuda.is_available() else 'cpu'
    key, query = f'torch{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}-{kind}', env.query
    monkeypatch.setattr(env, 'query', lambda code: key if 'import sys, torch' in code else query(code))
    return env


def test_a_ready_environment_needs_no_work(setup_env, tmp_path):
    env = setup_env.Environment(Path(sys.prefix))
    if not env.ready():
        pytest.skip('this environment was not made by make from these files')
    command = ['make', '--no-print-directory', 'env', f'VENV={sys.prefix}']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_the_stamp_follows_the_inputs_and_the_packages(setup_env, monkeypatch, tmp_path):
    pins, packages = tmp_path / 'tested.txt', tmp_path / 'lib' / 'python3.11' / 'site-packages'
    packages.mkdir(parents=True)
    pins.write_text('torch==1')
    monkeypatch.setattr(setup_env, 'INPUTS', [pins])
    seen = [setup_env.Environment(tmp_path).fingerprint()]
    pins.write_text('torch==2')
    seen.append(setup_env.Environment(tmp_path).fingerprint())
    os.utime(packages, ns=(0, 1))  # as after pip install
    seen.append(setup_env.Environment(tmp_path).fingerprint())
    assert len(set(seen)) == 3


def test_pins_cover_what_is_installed(setup_env):
    pins = setup_env.read_pins()
    assert {*setup_env.BASE, *setup_env.STACK, setup_env.MMCV} < set(pins)
    lines = [line for line in setup_env.PINS.read_text().splitlines() if line and not line.startswith('#')]
    assert len(lines) == len(pins)


class TestPackages:
    def test_only_missing_ones_are_added_to_the_environment_of_somebody_else(self, setup_env, env, monkeypatch):
        pins = setup_env.read_pins()
        monkeypatch.setattr(
            env, 'installed', lambda: {'torch': '2.6.0+cu124', 'numpy': '1.26.4', 'setuptools': '65.5.0'}
        )
        env.pip = lambda *args: env.calls.append((args, Path(args[2]).read_text().splitlines()))
        env.install(['torch', 'numpy', 'pytest', 'setuptools'], pins)
        ((args, constraints),) = env.calls
        assert args[3:] == (
            f'pytest=={pins["pytest"]}',
            f'setuptools=={pins["setuptools"]}',
        )  # 65 builds nothing of ours
        assert {'torch==2.6.0+cu124', 'numpy==1.26.4'} < set(constraints)

    def test_another_version_is_replaced_in_an_environment_of_ours(self, setup_env, env, monkeypatch):
        pins = setup_env.read_pins()
        env.marker.touch()
        monkeypatch.setattr(env, 'installed', lambda: {'torch': f'{pins["torch"]}+cu130', 'numpy': '1.26.4'})
        env.install(['torch', 'numpy'], pins)
        assert [call[3:] for call in env.calls] == [(f'numpy=={pins["numpy"]}',)]

    def test_original_openmmlab_packages_are_not_overwritten(self, setup_env, env, monkeypatch, capsys):
        have = {**setup_env.read_pins(), 'mmdet': '3.3.0'}
        del have['onedl-mmdetection'], have['hypothesis']
        monkeypatch.setattr(env, 'installed', lambda: have)
        setup_env.install_stack(env, setup_env.read_pins())
        ((*_, requirement),) = env.calls
        assert requirement.startswith('hypothesis==') and 'keeping the installed mmdet' in capsys.readouterr().out

    def test_the_page_is_left_out_where_it_does_not_fit(self, setup_env, env, monkeypatch, capsys):
        have = setup_env.read_pins()
        del have['gradio']
        monkeypatch.setattr(env, 'installed', lambda: have)

        def fail(*args):
            raise setup_env.SetupError('pip failed')

        monkeypatch.setattr(env, 'pip', fail)
        setup_env.install_stack(env, setup_env.read_pins())
        assert 'without gradio' in capsys.readouterr().out
        env.marker.touch()  # an environment of ours
        monkeypatch.setattr(env, 'runs', lambda code: code == 'import torch, torchvision')
        with pytest.raises(setup_env.SetupError):
            setup_env.install_stack(env, setup_env.read_pins())


# Compiles as torch 2.14 does: not with the standard that setup.py of mmcv 2.3.6 sets, nor with one in CXXFLAGS.
COMPILER = """#!/bin/sh
for source; do :; done
if grep -q c++17 "$source/setup.py" || test -n "$CXXFLAGS"; then
    echo 'Macros.h:19: error: #error C++20 or later compatible compiler is required to use ATen.'
    exit 1
fi
mkdir "$source/../dist" && touch "$source/../dist/mmcv.whl"
"""


class TestCompilation:
    @pytest.fixture
    def build(self, setup_env, env, tmp_path):
        """Compile a source with one file, by a program in place of Python."""

        def download(*args):
            with tarfile.open(Path(args[args.index('--dest') + 1]) / 'mmcv.tar.gz', 'w:gz') as archive:
                archive.add(tmp_path / 'source', 'onedl_mmcv-2.3.6')

        (tmp_path / 'source').mkdir()
        (tmp_path / 'source' / 'setup.py').write_text(
            "extra['cxx'] = ['-Wall', '-std=c++17']\nnvcc += ['-std=c++17']\n"
        )
        env.pip, env.python = download, tmp_path / 'python'
        env.python.write_text(COMPILER)
        env.python.chmod(0o755)
        return lambda: setup_env.build_mmcv(env, '2.3.6', tmp_path / 'kept')

    def test_torch_chooses_the_standard(self, build, tmp_path):
        assert build() == tmp_path / 'kept' / 'mmcv.whl'
        assert sorted(p.name for p in (tmp_path / 'kept').iterdir()) == ['build.log', 'mmcv.whl']

    def test_another_standard_is_named_and_the_sources_stay(self, setup_env, build, monkeypatch, tmp_path):
        monkeypatch.setenv('CXXFLAGS', '-std=c++17')
        with pytest.raises(setup_env.SetupError, match=r'C\+\+20 or later compatible compiler.*CXXFLAGS'):
            build()
        monkeypatch.delenv('CXXFLAGS')
        (tmp_path / 'source' / 'setup.py').unlink()  # a second download would fail
        assert build().exists()


class TestErrors:
    def test_a_folder_of_somebody_else_is_left_alone(self, tmp_path):
        (tmp_path / 'thesis').mkdir()
        (tmp_path / 'thesis' / 'chapter.txt').write_text('mine')
        env = {**os.environ, 'MMSTVIT_WHEEL_DIR': str(tmp_path / 'wheels')}
        command = [sys.executable, TOOL, '--venv', tmp_path / 'thesis']
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert f'{tmp_path / "thesis"} is not empty' in done.stderr and 'VENV=' in done.stderr
        assert [p.name for p in (tmp_path / 'thesis').iterdir()] == ['chapter.txt']

    @pytest.mark.parametrize('version', [(3, 9, 1), (3, 13, 0)])
    def test_other_pythons(self, setup_env, version):
        with pytest.raises(setup_env.SetupError, match=r'supported are 3\.10 to 3\.12.*PYTHON='):
            setup_env.check_python(version, 'python')

    def test_no_compiler(self, setup_env, env, monkeypatch):
        monkeypatch.setattr(env, 'runs', lambda code: False)
        monkeypatch.setenv('CXX', 'ccache-of-nowhere g++')
        with pytest.raises(setup_env.SetupError, match=r'C\+\+ compiler, and ccache-of-nowhere'):
            setup_env.check_compiler(env, setup_env.read_pins())

    @pytest.mark.long
    def test_an_interrupted_creation_and_a_pip_that_fails(self, setup_env, monkeypatch, tmp_path, capfd):
        monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path / 'wheels'))
        monkeypatch.setenv('PIP_NO_INDEX', '1')
        pins = tmp_path / 'tested.txt'
        pins.write_text(setup_env.PINS.read_text())
        monkeypatch.setattr(setup_env, 'PINS', pins)
        env = setup_env.Environment(tmp_path / 'venv')
        env.folder.mkdir()
        for path in (env.marker, env.stamp, env.folder / 'half'):
            path.touch()
        monkeypatch.setattr(sys, 'argv', ['setup_env.py', '--venv', str(env.folder)])
        with pytest.raises(SystemExit, match=r'error: pip failed: .* install'):
            setup_env.main()
        assert env.ours and env.runs('import pip') and not (env.folder / 'half').exists()
        assert not env.stamp.exists()
