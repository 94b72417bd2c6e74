"""Install PyTorch, the OpenMMLab stack and mmstvit into one environment.

``make`` calls this before every target that needs Python packages. A second call returns at once, and a call after an
interruption continues: pip skips what is installed, ninja skips the object files that are compiled, and a stamp in the
environment is written last. It uses only the standard library, because it runs before anything is installed.

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
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / 'requirements' / 'tested.txt'
# A change of these files changes what is installed.
INPUTS = [PINS, ROOT / 'setup.py', ROOT / 'pyproject.toml', Path(__file__).resolve()]
PYTHONS = ((3, 10), (3, 12))
# Installed first: mmcv is built with the first six, and a change of the last three must not be left to the resolver.
BASE = ['pip', 'setuptools', 'wheel', 'packaging', 'ninja', 'psutil', 'torch', 'torchvision', 'numpy']
# CFLAGS replaces Python's own flags, optimization included; -g0 leaves out 30 MB of debug information.
CFLAGS = '-O3 -DNDEBUG -g0'
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


def wheel_root() -> Path:
    """Return the folder of kept mmcv wheels."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(os.environ.get('MMSTVIT_WHEEL_DIR') or Path(cache) / 'mmstvit' / 'wheels').expanduser().absolute()


@contextmanager
def lock() -> Iterator[None]:
    """Let one set-up of a user run at a time: environments and kept wheels are shared."""
    wheel_root().mkdir(parents=True, exist_ok=True)
    with open(wheel_root() / 'lock', 'w') as file:
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

    def query(self, code: str) -> str:
        """Return the output of Python code that runs in the environment; raises SetupError."""
        # -I keeps the checkout and PYTHONPATH off sys.path.
        done = subprocess.run([self.python, '-I', '-c', code], capture_output=True, text=True)
        if done.returncode:
            raise SetupError(f'{self.python} cannot run `{code}`:\n{done.stderr}')
        return done.stdout.strip()

    def runs(self, code: str) -> bool:
        """Return True if Python code runs in the environment without an error."""
        return subprocess.run([self.python, '-I', '-c', code], capture_output=True).returncode == 0

    def installed(self) -> dict[str, str]:
        """Return normalized name and version of every installed distribution."""
        code = (
            'import importlib.metadata as m, json, re; print(json.dumps({re.sub("[-_.]+", "-", d.metadata["Name"])'
            '.lower(): d.version for d in m.distributions() if d.metadata["Name"]}))'
        )
        return json.loads(self.query(code))

    def pip(self, *args: str) -> None:
        """Run pip; raises SetupError."""
        command = [str(self.python), '-m', 'pip', '--disable-pip-version-check', *args]
        # A package in PYTHONPATH or in the user's own folder must not count as installed.
        env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'PYTHONNOUSERSITE': '1'}
        if subprocess.run(command, env=env).returncode:
            raise SetupError(
                f'pip failed: {shlex.join(command)}\nIts message is above. Check the network and the free disk space '
                f'(the default build of torch takes about 5 GB), then run the same make target again.'
            )

    def install(self, names: list[str], pins: dict[str, str]) -> None:
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
            self.pip('install', '--constraint', constraints.name, *wanted)


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


def check_compiler(env: Environment, pins: dict[str, str]) -> None:
    """Refuse before the long downloads if mmcv will have to be compiled and cannot be; raises SetupError."""
    if env.runs('import torch, mmcv._ext') or list(wheel_root().glob(f'mmcv{pins[MMCV]}-*/*.whl')):
        return
    program = shlex.split(compiler())[0]
    if not shutil.which(program):
        raise SetupError(f'mmcv needs a C++ compiler, and {program} is not found. On Debian run: apt install g++')
    header = Path(env.query("import sysconfig; print(sysconfig.get_paths()['include'])")) / 'Python.h'
    if not header.exists():
        raise SetupError(f'mmcv needs {header}, which does not exist. On Debian run: apt install python3-dev')


def compiler() -> str:
    """Return the command of the C++ compiler; without $CXX setuptools would take the one that compiled Python."""
    return os.environ.get('CXX') or 'c++'


def install_stack(env: Environment, pins: dict[str, str]) -> None:
    """Install all pinned packages but mmcv, and no package of the OneDL line over an original one."""
    env.install(BASE, pins)
    if not env.runs('import torch, torchvision'):
        raise SetupError('torch and torchvision do not fit together. Install both from the same source.')
    have = env.installed()
    spec = 'import importlib.util as u; u.find_spec("{}").name'
    kept = [name for name, module in STACK.items() if name not in have and env.runs(spec.format(module))]
    if kept:
        log(f'keeping the installed {", ".join(STACK[name] for name in kept)}')
    env.install([name for name in pins if name not in (*BASE, MMCV, *PAGE, *kept)], pins)
    try:
        env.install(PAGE, pins)
    except SetupError:
        if env.ours:
            raise
        log(f'without {" and ".join(PAGE)}: they do not fit the installed packages. Only `make app` needs them')


def wheel_folder(env: Environment, pins: dict[str, str]) -> Path:
    """Return the folder of the mmcv wheel: pip's own cache does not know for which torch a wheel was compiled."""
    code = (
        'import sys, torch; print("torch" + torch.__version__, "cp{}{}".format(*sys.version_info), '
        '"cuda" if torch.cuda.is_available() else "cpu", sep="-")'
    )
    return wheel_root() / f'mmcv{pins[MMCV]}-{env.query(code)}-{platform.machine()}{CFLAGS.replace(" ", "")}'


def install_mmcv(env: Environment, pins: dict[str, str]) -> None:
    """Install mmcv with its compiled operators, unless a working one is there."""
    folder = wheel_folder(env, pins)
    code = f'import importlib.metadata as m; print(m.distribution("{MMCV}").read_text("direct_url.json"))'
    source = env.query(code) if MMCV in env.installed() else ''
    # A wheel of ours for another torch, or compiled with other flags, is replaced.
    outdated = f'/mmcv{pins[MMCV]}-torch' in source and f'/{folder.name}/' not in source.replace('%2B', '+')
    if not outdated and env.runs('import torch, mmcv._ext'):
        return
    wheel = next(folder.glob('*.whl'), None) or build_mmcv(env, pins[MMCV], folder)
    log(f'installing {wheel}')
    env.pip('install', '--quiet', '--force-reinstall', '--no-deps', str(wheel))
    if not env.runs('import torch, mmcv._ext'):
        raise SetupError(f'importing mmcv._ext fails. Remove {folder} and run the same make target again.')


def join_dispatch_files(folder: Path) -> None:
    """Compile the files that dispatch an operator to a device as one: each of the 57 reads torch's headers for 10 s."""
    files = sorted(path for path in folder.glob('*.cpp') if path.name not in ('pybind.cpp', 'dispatch.cpp'))
    for path in files:
        path.rename(path.with_suffix('.inc'))
    if files:
        includes = [f'#include "{path.stem}.inc"' for path in files]
        (folder / 'dispatch.cpp').write_text('\n'.join([*includes, '']))


def build_mmcv(env: Environment, version: str, folder: Path) -> Path:
    """Compile mmcv for the environment's torch; returns the wheel."""
    if folder.name.count('-cuda-') and not shutil.which('nvcc'):
        raise SetupError(
            'torch finds a GPU, but nvcc is not on PATH, so the CUDA operators of mmcv cannot be compiled. Install the '
            f'CUDA toolkit, or a prebuilt mmcv: {env.python} -m pip install onedl-mim && '
            f'{env.folder}/bin/mim install {MMCV}=={version}; then run the same make target again.'
        )
    build = folder / 'build'
    source = build / f'onedl_mmcv-{version}'
    if not source.exists():
        log(f'downloading the source of {MMCV} {version}')
        with tempfile.TemporaryDirectory() as scratch:
            options = ['--quiet', '--no-deps', '--no-cache-dir', '--no-build-isolation', '--no-binary', MMCV]
            env.pip('download', *options, '--dest', scratch, f'{MMCV}=={version}')
            shutil.unpack_archive(next(Path(scratch).glob('*.tar.gz')), build / 'unpacked')
        os.replace(build / 'unpacked' / source.name, source)
    # setup.py of mmcv 2.3.6 sets C++17, which torch >= 2.14 refuses. Where nothing is set, torch sets what it needs.
    script = source / 'setup.py'
    script.write_text(script.read_text().replace("'-std=c++17'", ''))
    join_dispatch_files(source / 'mmcv' / 'ops' / 'csrc' / 'pytorch')
    jobs = os.environ.get('MAX_JOBS', str(os.cpu_count() or 1))
    log(f'compiling mmcv {version} with {jobs} jobs; this takes minutes, once')
    path = f'{env.python.parent}{os.pathsep}{os.environ["PATH"]}'  # the environment's ninja
    settings = dict(CXX=compiler(), CFLAGS=CFLAGS, MAX_JOBS=jobs, PATH=path, PYTHONNOUSERSITE='1')
    command = [env.python, '-m', 'pip', 'wheel', '-v', '--no-cache-dir', '--no-deps', '--no-build-isolation']
    command += ['--wheel-dir', build / 'dist', source]
    start, output = time.monotonic(), folder / 'build.log'
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with open(output, 'w', 1) as log_file, subprocess.Popen(command, env=os.environ | settings, **pipes) as process:
        for line in process.stdout:
            log_file.write(line)
            if step := re.match(r'\s*\[(\d+/\d+)\]', line):
                log(f'compiling mmcv: {step[1]} files, {time.monotonic() - start:.0f} s')
    wheel = next((build / 'dist').glob('*.whl'), None)
    if process.returncode or wheel is None:
        standard = r'C\+\+\d+ or later compatible compiler is required|unrecognized.* .?-std=\S+'
        if found := re.search(standard, output.read_text()):
            cause = f'It says: {found[0]}. Use a newer compiler (CXX=g++-12 make ...), and no -std in CXXFLAGS.'
        else:
            cause = 'If memory ran out: MAX_JOBS=1 make ...'
        raise SetupError(
            f'compiling mmcv failed; the log is {output}. The compiled files are kept: fix the cause and run the same '
            f'make target again. {cause}'
        )
    os.replace(wheel, folder / wheel.name)  # atomic: a later call sees a whole wheel or none
    shutil.rmtree(build)
    return folder / wheel.name


def set_up(env: Environment) -> None:
    """Take all steps; each returns soon if its work is done."""
    env.stamp.unlink(missing_ok=True)
    pins = read_pins()
    create(env)
    check_compiler(env, pins)
    install_stack(env, pins)
    install_mmcv(env, pins)
    env.pip('install', '--quiet', '--no-deps', '--no-build-isolation', '--editable', str(ROOT))
    names = ', '.join(['torch', 'torchvision', *STACK.values(), 'mmcv', 'mmstvit'])
    code = f'import mmcv._ext, {names}; mmstvit.STViT; print(*[(m.__name__, m.__version__) for m in ({names})])'
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
