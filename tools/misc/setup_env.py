"""Set up one environment with PyTorch, the OpenMMLab stack and mmstvit.

``make`` calls this before every target that needs Python packages. A second call returns at once, and a call after an
interruption continues: pip skips what is installed, and a stamp in the environment is written last. It uses only the
standard library, because it runs before anything is installed: it creates the environment, then calls itself with the
Python in it to fill it.

An environment that this tool created gets the versions of requirements/tested.txt. To any other environment it only
adds missing packages: nothing but an old setuptools is upgraded, and packages with the same import name (the original
OpenMMLab distributions, a prebuilt mmcv) stay, because two distributions with one import name overwrite each other.
"""

import argparse
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

sys.path.append(str(Path(__file__).resolve().parents[2]))  # mmstvit is not installed yet

from mmstvit import install_mmcv
from mmstvit.install_mmcv import InstallError, pip, run_python

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / 'requirements' / 'tested.txt'
# A change of these files changes what is installed.
INPUTS = [PINS, ROOT / 'mmstvit' / 'install_mmcv.py', ROOT / 'setup.py', ROOT / 'pyproject.toml', Path(__file__)]
PYTHONS = ((3, 10), (3, 12))
STAMP, MARKER = '.mmstvit-setup', '.mmstvit-made'  # complete; created by this tool
# Installed first: mmcv is built with the first six, and a change of the last three must not be left to the resolver.
BASE = ['pip', 'setuptools', 'wheel', 'packaging', 'ninja', 'psutil', 'torch', 'torchvision', 'numpy']
# Distribution of the OneDL line -> import name, which the original distribution has, too.
STACK = {
    'onedl-mmengine': 'mmengine',
    'onedl-mmdetection': 'mmdet',
    'onedl-mmsegmentation': 'mmseg',
    'onedl-mmpretrain': 'mmpretrain',
}


def log(text: str) -> None:
    """Print a line of progress."""
    print(f'[setup] {text}', flush=True)


def fail(text: str) -> NoReturn:
    """End with a message that says what to do."""
    sys.exit(f'[setup] error: {text}')


def check_python(version: tuple[int, ...], name: str) -> None:
    """Refuse a Python version on which nothing was tested."""
    if not PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        low, high, have = ('.'.join(map(str, v)) for v in (*PYTHONS, version))
        fail(f'{name} is Python {have}; supported are {low} to {high}. Run: make PYTHON=python3.11 ...')


def fingerprint(folder: Path) -> str:
    """Return a digest of everything that decides what is installed, and of the folder that pip changes."""
    digest = hashlib.sha256(f'{folder} {ROOT}'.encode())
    for path in [*INPUTS, folder / 'pyvenv.cfg']:
        digest.update(path.read_bytes() if path.exists() else b'')
    for packages in sorted(folder.glob('lib/python3*/site-packages')):
        digest.update(str(packages.stat().st_mtime_ns).encode())
    return digest.hexdigest()


def is_ready(folder: Path) -> bool:
    """Return True if nothing has changed since the last complete set-up."""
    stamp = folder / STAMP
    return (folder / 'bin/python').exists() and stamp.exists() and stamp.read_text() == fingerprint(folder)


def create(folder: Path) -> None:
    """Create the environment, or accept an existing one; files of others are never removed."""
    python, marker = folder / 'bin' / 'python', folder / MARKER
    if python.exists():
        code = 'try: import pip\nexcept ImportError: import ensurepip; ensurepip.bootstrap()'
        if subprocess.run([python, '-I', '-c', code], capture_output=True).returncode == 0:
            return
        if not marker.exists():
            fail(f'{folder} has no pip. Install pip there, then run the same make target again.')
    elif folder.exists() and any(folder.iterdir()) and not marker.exists():
        fail(f'{folder} is not empty and not a Python environment. Name another one: make VENV=... ...')
    check_python(sys.version_info[:3], sys.executable)
    log(f'creating {folder} with {sys.executable} ({platform.python_version()})')
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    marker.touch()  # first, so that it also marks an environment whose creation was interrupted
    if subprocess.run([sys.executable, '-m', 'venv', str(folder)]).returncode:
        fail('python -m venv failed. On Debian and Ubuntu run: apt install python3-venv')


def set_up(folder: Path) -> None:
    """Create and fill an environment; returns soon if its work is done."""
    (folder / STAMP).unlink(missing_ok=True)
    create(folder)
    # Packages in PYTHONPATH or in the user's own folder do not count.
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'PYTHONNOUSERSITE': '1'}
    if subprocess.run([folder / 'bin' / 'python', __file__, '--fill'], env=env).returncode:
        sys.exit(1)
    (folder / STAMP).write_text(fingerprint(folder))
    log(f'ready: {folder}')


def read_pins() -> dict[str, str]:
    """Read requirements/tested.txt: distribution name to version."""
    return dict(re.findall(r'^([\w-]+)==(\S+)', PINS.read_text(), re.MULTILINE))


def installed() -> dict[str, str]:
    """Return normalized name and version of every distribution in this environment."""
    found = {d.metadata['Name']: d.version for d in importlib.metadata.distributions() if d.metadata['Name']}
    return {re.sub('[-_.]+', '-', name).lower(): version for name, version in found.items()}


def add(names: list[str], pins: dict[str, str], ours: bool) -> None:
    """Install the missing packages, and in an environment of ours those of another version than the pinned one."""
    have = installed()
    if ours:  # a local version label such as +cu130 does not count
        have = {name: version for name, version in have.items() if version.partition('+')[0] == pins.get(name)}
    elif int(have.get('setuptools', '0').partition('.')[0]) < 77:  # cannot build mmcv and mmstvit
        have.pop('setuptools', None)
    wanted = [f'{name}=={pins[name]}' for name in names if name not in have]
    if not wanted:
        return
    log(f'installing {", ".join(wanted)}')
    # Python compiles what it imports; compiling all 21,000 files would take a third of pip's time.
    options = ['--no-compile'] if ours else []
    with tempfile.NamedTemporaryFile('w', suffix='.txt') as constraints:  # nothing may pull another torch in
        constraints.writelines(f'{name}=={have.get(name, version)}\n' for name, version in pins.items())
        constraints.flush()
        pip('install', *options, '--constraint', constraints.name, *wanted)


def add_packages(pins: dict[str, str], ours: bool) -> None:
    """Install all pinned packages but mmcv, and no package of the OneDL line over an original one."""
    add(BASE, pins, ours)
    if run_python('import torch, torchvision').returncode:
        raise InstallError('torch and torchvision do not fit together. Install both from the same source.')
    have = installed()
    kept = [name for name, module in STACK.items() if name not in have and importlib.util.find_spec(module)]
    if kept:
        log(f'keeping the installed {", ".join(STACK[name] for name in kept)}')
    add([name for name in pins if name not in (*BASE, install_mmcv.NAME, *kept)], pins, ours)


def fill() -> None:
    """Install everything into the environment of this Python."""
    check_python(sys.version_info[:3], sys.executable)
    install_mmcv.check()  # before the long downloads
    add_packages(read_pins(), (Path(sys.prefix) / MARKER).exists())
    install_mmcv.install()
    pip('install', '--quiet', '--no-deps', '--no-build-isolation', '--editable', ROOT)
    names = ', '.join(['torch', 'torchvision', *STACK.values(), 'mmcv', 'mmstvit'])
    done = run_python(f'import {names}; mmstvit.STViT; print(*[(m.__name__, m.__version__) for m in ({names})])')
    if done.returncode:
        raise InstallError(f'the packages are installed, but cannot be imported:\n{done.stderr}')
    log(install_mmcv.last_line(done.stdout))


def main() -> None:
    """Set up the environment of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv', help='environment to fill (default: .venv)')
    parser.add_argument('--fill', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fill:
        try:
            return fill()
        except InstallError as error:
            fail(str(error))
    # Not resolve(): the python of an environment is a symbolic link.
    folder = Path(os.path.abspath(args.venv.expanduser()))
    if is_ready(folder):
        return
    try:
        with open(PINS, 'r+') as file:  # a network file system locks only what is open for writing
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # each set-up writes into mmstvit/.mim
            except BlockingIOError:
                log('waiting for another set-up')
                fcntl.flock(file, fcntl.LOCK_EX)
            if not is_ready(folder):
                set_up(folder)
    except KeyboardInterrupt:
        sys.exit('\n[setup] interrupted; run the same make target to continue')


if __name__ == '__main__':
    main()
