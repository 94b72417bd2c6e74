"""Install PyTorch, the OpenMMLab stack and mmstvit into one environment.

``make`` calls this before every target that needs Python packages. A second call returns at once, and a call after an
interruption continues: pip skips what is installed, and a stamp in the environment is written last. It uses only the
standard library, because it runs before anything is installed.

An environment that this tool created gets the versions of requirements/tested.txt. To any other environment it only
adds missing packages: nothing but an old setuptools is upgraded, and packages with the same import name (the original
OpenMMLab distributions, a prebuilt mmcv) stay, because two distributions with one import name overwrite each other.
"""

import argparse
import fcntl
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / 'requirements' / 'tested.txt'
INSTALL_MMCV = ROOT / 'mmstvit' / 'install_mmcv.py'
# A change of these files changes what is installed.
INPUTS = [PINS, INSTALL_MMCV, ROOT / 'setup.py', ROOT / 'pyproject.toml', Path(__file__).resolve()]
PYTHONS = ((3, 10), (3, 12))
# Installed first: mmcv is built with the first six, and a change of the last three must not be left to the resolver.
BASE = ['pip', 'setuptools', 'wheel', 'packaging', 'ninja', 'psutil', 'torch', 'torchvision', 'numpy']
# Distribution of the OneDL line -> import name, which the original distribution has, too.
STACK = {
    'onedl-mmengine': 'mmengine',
    'onedl-mmdetection': 'mmdet',
    'onedl-mmsegmentation': 'mmseg',
    'onedl-mmpretrain': 'mmpretrain',
}
MMCV = 'onedl-mmcv'
# Installed last: without them, everything but the page works.
PAGE = ['gradio', 'playwright']


class SetupError(RuntimeError):
    """A step failed; the message says what to do."""


def log(text: str) -> None:
    """Print a line of progress."""
    print(f'[setup] {text}', flush=True)


def read_pins() -> dict[str, str]:
    """Read requirements/tested.txt: distribution name to version."""
    return dict(re.findall(r'^([\w-]+)==(\S+)', PINS.read_text(), re.MULTILINE))


@contextmanager
def lock() -> Iterator[None]:
    """Let one set-up of this checkout run at a time: each writes into mmstvit/.mim."""
    with open(PINS, 'r+') as file:  # a network file system locks only what is open for writing
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log('waiting for another set-up')
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Environment:
    """A Python environment, to query and to install into.

    Args:
        folder: Root of the environment; its interpreter is ``bin/python``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / 'bin' / 'python'
        self.stamp = folder / '.mmstvit-setup'
        # Written before the environment is created, so that it also marks one whose creation was interrupted.
        self.marker = folder / '.mmstvit-made'

    @property
    def ours(self) -> bool:
        """True if this tool created the environment."""
        return self.marker.exists()

    def fingerprint(self) -> str:
        """Return a digest of everything that decides what is installed, and of the folder that pip changes."""
        digest = hashlib.sha256(f'{self.folder} {ROOT}'.encode())
        for path in [*INPUTS, self.folder / 'pyvenv.cfg']:
            digest.update(path.read_bytes() if path.exists() else b'')
        for packages in sorted(self.folder.glob('lib/python3*/site-packages')):
            digest.update(str(packages.stat().st_mtime_ns).encode())
        return digest.hexdigest()

    def ready(self) -> bool:
        """Return True if nothing has changed since the last complete set-up."""
        return self.python.exists() and self.stamp.exists() and self.stamp.read_text() == self.fingerprint()

    def run(self, *args: object, capture: bool = False) -> subprocess.CompletedProcess[str]:
        """Run Python with these arguments; packages in PYTHONPATH or in the user's own folder do not count."""
        env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'PYTHONNOUSERSITE': '1'}
        return subprocess.run([self.python, *args], env=env, capture_output=capture, text=True)

    def runs(self, code: str) -> bool:
        """Return True if Python code runs in the environment without an error."""
        return self.run('-I', '-c', code, capture=True).returncode == 0  # -I: without the working directory

    def query(self, code: str) -> str:
        """Return the output of Python code that runs in the environment; raises SetupError."""
        done = self.run('-I', '-c', code, capture=True)
        if done.returncode:
            raise SetupError(f'{self.python} cannot run `{code}`:\n{done.stderr}')
        return done.stdout.strip()

    def installed(self) -> dict[str, str]:
        """Return normalized name and version of every installed distribution."""
        code = (
            'import importlib.metadata as m, json, re; print(json.dumps({re.sub("[-_.]+", "-", d.metadata["Name"])'
            '.lower(): d.version for d in m.distributions() if d.metadata["Name"]}))'
        )
        return json.loads(self.query(code))

    def pip_install(self, *args: str) -> None:
        """Run ``pip install``; raises SetupError."""
        # Python compiles what it imports; compiling all 21,000 files would take a third of pip's time.
        options = ['--no-compile'] if self.ours else []
        command = ['-m', 'pip', '--disable-pip-version-check', 'install', *options, *args]
        if self.run(*command).returncode:
            raise SetupError(
                f'pip failed: {shlex.join([str(self.python), *command])}\nIts message is above. Check the network and '
                'the free disk space (torch takes about 5 GB by default), then run the same make target again.'
            )

    def add(self, names: list[str], pins: dict[str, str]) -> None:
        """Install the missing packages, and in an environment of ours those of another version than the pinned one."""
        have = self.installed()
        if self.ours:  # a local version label such as +cu130 does not count
            have = {name: version for name, version in have.items() if version.partition('+')[0] == pins.get(name)}
        elif int(have.get('setuptools', '0').partition('.')[0]) < 77:  # cannot build mmcv and mmstvit
            have.pop('setuptools', None)
        wanted = [f'{name}=={pins[name]}' for name in names if name not in have]
        if not wanted:
            return
        log(f'installing {", ".join(wanted)}')
        with tempfile.NamedTemporaryFile('w', suffix='.txt') as constraints:  # nothing may pull another torch in
            constraints.writelines(f'{name}=={have.get(name, version)}\n' for name, version in pins.items())
            constraints.flush()
            self.pip_install('--constraint', constraints.name, *wanted)

    def add_mmcv(self, *options: str) -> None:
        """Run mmstvit/install_mmcv.py in the environment; raises SetupError."""
        if self.run('-I', INSTALL_MMCV, *options).returncode:
            raise SetupError('mmcv: the reason is above. Remove it, then run the same make target again.')


def check_python(version: tuple[int, ...], name: str) -> None:
    """Refuse a Python version on which nothing was tested; raises SetupError."""
    if not PYTHONS[0] <= version[:2] <= PYTHONS[1]:
        low, high, have = ('.'.join(map(str, v)) for v in (*PYTHONS, version))
        raise SetupError(f'{name} is Python {have}; supported are {low} to {high}. Run: make PYTHON=python3.11 ...')


def create(env: Environment) -> None:
    """Create the environment, or accept an existing one; files of others are never removed."""
    if env.python.exists():
        check_python(tuple(map(int, env.query('import sys; print(*sys.version_info[:3])').split())), str(env.python))
        if env.runs('import pip') or env.runs('import ensurepip; ensurepip.bootstrap()'):
            return
        if not env.ours:
            raise SetupError(f'{env.folder} has no pip. Install pip there, then run the same make target again.')
    elif env.folder.exists() and any(env.folder.iterdir()) and not env.ours:
        raise SetupError(f'{env.folder} is not empty and not a Python environment. Name another one: make VENV=... ...')
    check_python(sys.version_info[:3], sys.executable)
    log(f'creating {env.folder} with {sys.executable} ({platform.python_version()})')
    if env.folder.exists():
        shutil.rmtree(env.folder)
    env.folder.mkdir(parents=True)
    env.marker.touch()
    if subprocess.run([sys.executable, '-m', 'venv', str(env.folder)]).returncode:
        raise SetupError('python -m venv failed. On Debian and Ubuntu run: apt install python3-venv')


def install_stack(env: Environment, pins: dict[str, str]) -> None:
    """Install all pinned packages but mmcv, and no package of the OneDL line over an original one."""
    env.add(BASE, pins)
    if not env.runs('import torch, torchvision'):
        raise SetupError('torch and torchvision do not fit together. Install both from the same source.')
    have = env.installed()
    spec = 'import importlib.util as u; u.find_spec("{}").name'
    kept = [name for name, module in STACK.items() if name not in have and env.runs(spec.format(module))]
    if kept:
        log(f'keeping the installed {", ".join(STACK[name] for name in kept)}')
    env.add([name for name in pins if name not in (*BASE, MMCV, *PAGE, *kept)], pins)
    try:
        env.add(PAGE, pins)
    except SetupError:
        if env.ours:
            raise
        log(f'without {" and ".join(PAGE)}: they do not fit the installed packages. Only `make app` needs them')


def set_up(env: Environment) -> None:
    """Take all steps; each returns soon if its work is done."""
    env.stamp.unlink(missing_ok=True)
    pins = read_pins()
    create(env)
    env.add_mmcv('--dry-run')  # before the long downloads
    install_stack(env, pins)
    env.add_mmcv()
    env.pip_install('--quiet', '--no-deps', '--no-build-isolation', '--editable', str(ROOT))
    names = ', '.join(['torch', 'torchvision', *STACK.values(), 'mmcv', 'mmstvit'])
    code = f'import {names}; mmstvit.STViT; print(*[(m.__name__, m.__version__) for m in ({names})])'
    log(env.query(code).splitlines()[-1])
    env.stamp.write_text(env.fingerprint())


def main() -> None:
    """Set up the environment of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv', help='environment to fill (default: .venv)')
    args = parser.parse_args()
    # Not resolve(): the python of an environment is a symbolic link.
    env = Environment(Path(os.path.abspath(args.venv.expanduser())))
    if env.ready():
        return
    try:
        with lock():
            if not env.ready():
                set_up(env)
                log(f'ready: {env.folder}')
    except SetupError as error:
        sys.exit(f'[setup] error: {error}')
    except KeyboardInterrupt:
        sys.exit('\n[setup] interrupted; run the same make target to continue')


if __name__ == '__main__':
    main()
