"""Set up one environment with PyTorch, the OpenMMLab stack and mmstvit.

``make`` calls this before every target that needs Python packages. A second call returns at once, and a call after an
interruption continues: pip skips what is installed, and a stamp in the environment is written last. It uses only the
standard library, because it runs before anything is installed: this file creates the environment, and fill_env.py fills
it, with the Python in it.
"""

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[2]
PINS, FILL = ROOT / 'requirements' / 'tested.txt', Path(__file__).resolve().with_name('fill_env.py')
# A change of these files changes what is installed.
INPUTS = [PINS, ROOT / 'mmstvit' / 'install_mmcv.py', ROOT / 'setup.py', ROOT / 'pyproject.toml', FILL]
PYTHONS = ((3, 10), (3, 12))
STAMP, MARKER = '.mmstvit-setup', '.mmstvit-made'  # complete; created by this tool


def log(text: str) -> None:
    """Print a line of progress."""
    print(f'[setup] {text}', flush=True)


def fail(text: str) -> NoReturn:
    """End with a message that says what to do."""
    sys.exit(f'[setup] error: {text}')


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


def check_python(version: tuple[int, ...], name: str) -> None:
    """Refuse a Python version on which nothing was tested."""
    if not PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        low, high, have = ('.'.join(map(str, v)) for v in (*PYTHONS, version))
        fail(f'{name} is Python {have}; supported are {low} to {high}. Run: make PYTHON=python3.11 ...')


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
    if folder.exists() and not folder.is_dir():
        fail(f'{folder} is a file. Name a folder: make VENV=... ...')
    (folder / STAMP).unlink(missing_ok=True)
    create(folder)
    # Packages in PYTHONPATH or in the user's own folder do not count.
    env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'PYTHONNOUSERSITE': '1'}
    if subprocess.run([folder / 'bin' / 'python', FILL], env=env).returncode:
        sys.exit(1)
    (folder / STAMP).write_text(fingerprint(folder))
    log(f'ready: {folder}')


def main() -> None:
    """Set up the environment of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv', help='environment to fill (default: .venv)')
    # Not resolve(): the python of an environment is a symbolic link.
    folder = Path(os.path.abspath(parser.parse_args().venv.expanduser()))
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
