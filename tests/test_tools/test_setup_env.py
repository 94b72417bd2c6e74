"""``tools/misc/setup_env.py``: it does nothing twice, keeps what is there, and says what to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers import ROOT, load_tool

TOOL = ROOT / 'tools' / 'misc' / 'setup_env.py'


@pytest.fixture(scope='module')
def setup_env():
    return load_tool('misc/setup_env.py')


def environment(
    setup_env, monkeypatch, folder: Path, have: dict[str, str] | None = None, importable: tuple = (), ours: bool = True
):
    """An environment that answers from memory and records what pip is asked for."""
    env = setup_env.Environment(folder, setup_env.read_pins())
    if ours:
        env.marker.touch()
    calls = []
    monkeypatch.setattr(env, 'installed', lambda: have or {})
    monkeypatch.setattr(env, 'works', lambda code: any(name in code for name in importable))
    monkeypatch.setattr(env, 'query', lambda code: 'torch0-cp311-cpu')
    monkeypatch.setattr(env, 'pip', lambda *args, quiet=False: calls.append(args))
    return env, calls


def keep_wheel(setup_env, env) -> Path:
    """A wheel where an earlier set-up would have kept it."""
    wheel = setup_env.wheel_folder(env) / 'onedl_mmcv.whl'
    wheel.parent.mkdir(parents=True)
    wheel.touch()
    return wheel


def test_a_ready_environment_needs_no_work(setup_env):
    venv = Path(sys.prefix)
    stamp = venv / '.mmstvit-setup'
    if not stamp.exists() or stamp.read_text() != setup_env.fingerprint(venv):
        pytest.skip('this environment was not made by make from these files')
    done = subprocess.run(
        ['make', '--no-print-directory', 'env', f'VENV={venv}'], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')


def test_every_pin_is_exact_and_covers_the_stack(setup_env):
    pins = setup_env.read_pins()
    assert {*setup_env.STACK, *setup_env.BUILD_TOOLS, *setup_env.TORCH} <= set(pins)


def test_the_fingerprint_follows_every_input(setup_env, tmp_path, monkeypatch):
    inputs = [tmp_path / name for name in ('a', 'b')]
    for path in inputs:
        path.write_text('old')
    monkeypatch.setattr(setup_env, 'INPUTS', inputs)
    before = setup_env.fingerprint(tmp_path)
    for path in [*inputs, tmp_path / 'pyvenv.cfg']:
        path.write_text('new')
        after = setup_env.fingerprint(tmp_path)
        assert after != before
        before = after
    assert setup_env.fingerprint(tmp_path / 'other') != before


def test_installed_versions_are_not_installed_again(setup_env, monkeypatch, tmp_path):
    pins = setup_env.read_pins()
    have = {'torch': pins['torch'] + '+cu130', 'torchvision': '0.1', 'wheel': pins['wheel']}
    env, _ = environment(setup_env, monkeypatch, tmp_path, have)
    assert env.missing(['torch', 'torchvision', 'numpy', 'wheel']) == [
        f'torchvision=={pins["torchvision"]}', f'numpy=={pins["numpy"]}',
    ]  # fmt: skip


def test_a_prebuilt_mmcv_with_ops_is_kept(setup_env, monkeypatch, tmp_path):
    env, calls = environment(setup_env, monkeypatch, tmp_path, importable=('mmcv._ext',))
    monkeypatch.setattr(setup_env, 'build_mmcv', lambda *_: pytest.fail('built although one is there'))
    setup_env.install_mmcv(env)
    assert calls == []


def test_a_kept_wheel_is_installed_without_building(setup_env, monkeypatch, tmp_path):
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path / 'wheels'))
    env, calls = environment(setup_env, monkeypatch, tmp_path)
    wheel = keep_wheel(setup_env, env)
    monkeypatch.setattr(setup_env, 'build_mmcv', lambda *_: pytest.fail('built although a wheel is there'))
    setup_env.install_mmcv(env)
    assert [call[-1] for call in calls] == [str(wheel)]


def test_the_wheel_folder_is_keyed_by_mmcv_torch_and_python(setup_env, monkeypatch, tmp_path):
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path))
    env = setup_env.Environment(Path(sys.prefix), setup_env.read_pins())
    import torch

    name = setup_env.wheel_folder(env).name
    assert f'mmcv{env.pins["onedl-mmcv"]}-' in name
    assert f'-torch{torch.__version__}-' in name
    assert f'-cp{sys.version_info[0]}{sys.version_info[1]}-' in name


def test_original_openmmlab_packages_are_not_overlaid(setup_env, monkeypatch, tmp_path, capsys):
    env, calls = environment(setup_env, monkeypatch, tmp_path, importable=('"mmdet"', 'mmcv._ext'))
    setup_env.install_stack(env)
    (call,) = calls
    assert not [part for part in call if part.startswith('onedl-mmdetection')]
    assert [part for part in call if part.startswith('onedl-mmsegmentation')]
    assert 'keeping the mmdet that is installed' in capsys.readouterr().out


def test_mmcv_of_another_torch_is_replaced(setup_env, monkeypatch, tmp_path):
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path / 'wheels'))
    env, calls = environment(setup_env, monkeypatch, tmp_path, importable=('mmcv._ext',))
    env.mmcv_source.write_text('mmcv of another torch')
    wheel = keep_wheel(setup_env, env)
    setup_env.install_mmcv(env)
    assert [call[-1] for call in calls] == [str(wheel)]
    setup_env.install_mmcv(env)
    assert len(calls) == 1, 'installed twice'


def test_mmcv_whose_ops_do_not_load_is_an_error(setup_env, monkeypatch, tmp_path):
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path / 'wheels'))
    env, _ = environment(setup_env, monkeypatch, tmp_path)
    keep_wheel(setup_env, env)

    def query(code: str) -> str:
        if 'mmcv._ext' in code:
            raise setup_env.SetupError('undefined symbol')
        return 'torch0-cp311-cpu'

    monkeypatch.setattr(env, 'query', query)
    with pytest.raises(setup_env.SetupError, match=r'mmcv\._ext does not import(.|\n)*undefined symbol'):
        setup_env.install_mmcv(env)


def test_nothing_is_upgraded_in_an_environment_of_somebody_else(setup_env, monkeypatch, tmp_path):
    have = {'torch': '2.6.0', 'torchvision': '0.21', 'numpy': '1.26'}
    env, calls = environment(setup_env, monkeypatch, tmp_path, have, importable=('torch',), ours=False)
    setup_env.install_torch(env)
    assert calls == []
    assert env.missing(['numpy', 'pytest']) == [f'pytest=={setup_env.read_pins()["pytest"]}']


def test_a_folder_that_is_no_environment_is_left_alone(tmp_path):
    (tmp_path / 'thesis').mkdir()
    (tmp_path / 'thesis' / 'chapter.txt').write_text('mine')
    done = subprocess.run([sys.executable, TOOL, '--venv', tmp_path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f'{tmp_path} is not empty' in done.stderr and 'VENV=' in done.stderr
    assert [str(p.relative_to(tmp_path)) for p in tmp_path.rglob('*')] == ['thesis', 'thesis/chapter.txt']


def test_an_interrupted_creation_is_begun_again(setup_env, monkeypatch, tmp_path):
    folder = tmp_path / 'venv'
    env = setup_env.Environment(folder, setup_env.read_pins())
    folder.mkdir()
    env.marker.touch()
    (folder / 'half').touch()
    setup_env.prepare_environment(env)
    assert env.works('import pip') and env.ours and not (folder / 'half').exists()


@pytest.mark.parametrize('version', [(3, 9, 1), (3, 13, 0)])
def test_other_pythons_are_refused_with_the_remedy(setup_env, version):
    with pytest.raises(setup_env.SetupError, match=r'supported are 3\.10 to 3\.12.*PYTHON='):
        setup_env.check_interpreter(version, 'python')


def test_a_missing_compiler_is_named(setup_env, monkeypatch, tmp_path):
    env, _ = environment(setup_env, monkeypatch, tmp_path)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('MMSTVIT_WHEEL_DIR', str(tmp_path / 'wheels'))
    monkeypatch.setenv('CXX', 'ccache g++')
    with pytest.raises(setup_env.SetupError, match=r'no C\+\+ compiler \(ccache\)'):
        setup_env.check_build_tools(env)


def test_a_failed_pip_ends_in_one_message_and_no_stamp(tmp_path):
    venv = tmp_path / 'venv'
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', venv], check=True)
    python = venv / 'bin' / 'python'
    python.unlink()
    # An environment whose pip always fails.
    python.write_text(f'#!/bin/sh\ncase "$*" in *"-m pip"*) exit 9;; *) exec {sys.executable} "$@";; esac\n')
    python.chmod(0o755)
    env = {**os.environ, 'MMSTVIT_WHEEL_DIR': str(tmp_path / 'wheels')}
    pins = tmp_path / 'tested.txt'
    pins.write_text((ROOT / 'requirements' / 'tested.txt').read_text().replace('wheel==', 'wheel==99.'))
    (venv / '.mmstvit-made').touch()
    (venv / '.mmstvit-setup').write_text('stale')
    code = (
        f'import importlib.util, pathlib, sys; spec = importlib.util.spec_from_file_location("s", {str(TOOL)!r}); '
        f'm = importlib.util.module_from_spec(spec); spec.loader.exec_module(m); m.PINS = pathlib.Path({str(pins)!r}); '
        f'sys.argv = ["s", "--venv", {str(venv)!r}]; m.main()'
    )
    done = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert '[setup] error: pip failed' in done.stderr and 'Traceback' not in done.stderr
    assert not (venv / '.mmstvit-setup').exists()
