"""Install PyTorch, the OpenMMLab stack and mmstvit into one environment.

``make`` calls this before every target that needs Python packages. It uses the standard library only, because it
runs before anything is installed. Work that is already done is recognised, so a second call returns at once and an
interrupted call carries on where it stopped:

* every pip step is skipped when what it installs is importable at the pinned version;
* mmcv is compiled in a folder that survives an interruption (ninja keeps the finished object files), and the wheel
  is kept in a folder keyed by mmcv, torch, Python and accelerator, because pip's own wheel cache does not know which
  torch a wheel was compiled against;
* a stamp records the files that decide what is installed; it is removed first and written last.

An environment that this tool made gets exactly the pinned versions. In one that somebody else made only what is absent
is added: nothing is upgraded, and packages under the same import name (the original OpenMMLab distributions, a
prebuilt mmcv with ops) are kept, because two distributions over one import folder break each other.
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
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / 'requirements' / 'tested.txt'
# What decides the content of the environment: a change of any of them makes the stamp stale.
INPUTS = [PINS, ROOT / 'setup.py', ROOT / 'pyproject.toml', Path(__file__).resolve()]
SUPPORTED = ((3, 10), (3, 12))
BUILD_TOOLS = ['pip', 'setuptools', 'wheel', 'packaging', 'ninja', 'psutil']
TORCH = ['torch', 'torchvision', 'numpy']
# CFLAGS replaces Python's own flags, optimisation included; -g0 leaves out 30 MB of debug information.
CFLAGS = '-O3 -DNDEBUG -g0'
# distribution of the OneDL line -> import name it shares with the original distribution
STACK = {
    'onedl-mmengine': 'mmengine',
    'onedl-mmcv': 'mmcv',
    'onedl-mmdetection': 'mmdet',
    'onedl-mmsegmentation': 'mmseg',
    'onedl-mmpretrain': 'mmpretrain',
}


class SetupError(RuntimeError):
    """A step failed; the message says what to do."""


def say(text: str) -> None:
    print(f'[setup] {text}', flush=True)


def read_pins() -> dict:
    pins = {}
    for line in PINS.read_text().splitlines():
        line = line.split('#')[0].strip()
        if line:
            name, version = line.split('==')
            pins[name] = version
    return pins


def fingerprint(folder: Path) -> str:
    """Digest of all that decides the content of an environment, its own Python included."""
    digest = hashlib.sha256(f'{folder} {ROOT}'.encode())
    for path in [*INPUTS, folder / 'pyvenv.cfg']:
        digest.update(path.read_bytes() if path.exists() else b'')
    return digest.hexdigest()


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; say so when somebody else holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f'another set-up is {what}; waiting for it')
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Environment:
    """One Python environment: asks it what is installed, installs into it.

    Args:
        folder: Root of the environment (``bin/python`` below it).
        pins: Distribution name to version.
    """

    def __init__(self, folder: Path, pins: dict) -> None:
        self.folder = folder
        self.python = folder / 'bin' / 'python'
        self.pins = pins
        # Written before the environment is created, so that an interrupted creation is known as ours too.
        self.marker = folder / '.mmstvit-made'
        # Which wheel folder mmcv came from; absent when the user installed mmcv.
        self.mmcv_source = folder / '.mmstvit-mmcv'

    @property
    def ours(self) -> bool:
        """Whether this tool made the environment."""
        return self.marker.exists()

    def query(self, code: str) -> str:
        """Output of a Python snippet run in the environment; raises SetupError with its error output."""
        # -I keeps the checkout off sys.path: what is asked for is what is installed.
        done = subprocess.run([self.python, '-I', '-c', code], capture_output=True, text=True)
        if done.returncode:
            raise SetupError(f'{self.python} cannot run `{code}`:\n{done.stderr}')
        return done.stdout.strip()

    def works(self, code: str) -> bool:
        try:
            self.query(code)
        except SetupError:
            return False
        return True

    def installed(self) -> dict:
        """Distribution name (normalised) to version, of everything in the environment."""
        code = (
            'import importlib.metadata as m, json, re; '
            "print(json.dumps({re.sub(r'[-_.]+', '-', d.metadata['Name']).lower(): d.version "
            "for d in m.distributions() if d.metadata['Name']}))"
        )
        return json.loads(self.query(code))

    def missing(self, names: list) -> list:
        """Requirements of ``names`` to install: not there, or in an environment of ours not at the pinned version."""
        have = self.installed()
        if not self.ours:
            return [f'{n}=={self.pins[n]}' for n in names if n not in have]
        # A local version label (2.11.0+cu130) is the same release.
        return [f'{n}=={self.pins[n]}' for n in names if have.get(n, '').split('+')[0] != self.pins[n]]

    def pip(self, *args, quiet: bool = False) -> None:
        command = [str(self.python), '-m', 'pip', '--disable-pip-version-check', *args]
        if quiet:
            command.append('--quiet')
        # No PYTHONPATH, and no user site: both would let a stranger's package count as installed.
        env = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'PYTHONNOUSERSITE': '1'}
        if subprocess.run(command, env=env).returncode:
            raise SetupError(
                f'pip failed: {" ".join(command)}\nIts own message is above. Check the network and the free disk '
                f'space (the default torch build takes about 5 GB), then run the same make target again: '
                f'what is done is kept.'
            )


def check_interpreter(version: tuple, name: str) -> None:
    low, high = SUPPORTED
    if not low <= version[:2] <= high:
        raise SetupError(
            f'{name} is Python {".".join(map(str, version))}; supported are {low[0]}.{low[1]} to '
            f'{high[0]}.{high[1]}. Name another one: make PYTHON=python3.11 ...'
        )


def prepare_environment(env: Environment) -> None:
    """Create the environment, or accept the one that is there; never removes what this tool did not make."""
    if env.python.exists():
        version = tuple(map(int, env.query('import sys; print(*sys.version_info[:3])').split()))
        check_interpreter(version, str(env.python))
        if env.works('import pip'):
            return
        if not env.ours:
            if not env.works('import ensurepip; ensurepip.bootstrap()'):
                raise SetupError(f'{env.folder} has no pip and no ensurepip. Install pip into it, then run make again.')
            return
    elif env.folder.exists() and any(env.folder.iterdir()) and not env.ours:
        raise SetupError(f'{env.folder} is not empty and no Python environment; name another one: make VENV=... ...')
    check_interpreter(sys.version_info[:3], sys.executable)
    say(f'creating {env.folder} with {sys.executable} ({platform.python_version()})')
    if env.folder.exists():
        shutil.rmtree(env.folder)
    env.folder.mkdir(parents=True)
    env.marker.touch()
    command = [sys.executable, '-m', 'venv', str(env.folder)]
    if subprocess.run(command).returncode:
        raise SetupError(
            f'{shlex.join(command)} failed. Debian and Ubuntu keep venv in a package of its own: '
            f'apt install python3-venv'
        )


def wheel_root() -> Path:
    base = os.environ.get('MMSTVIT_WHEEL_DIR')
    if not base:
        cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
        base = Path(cache) / 'mmstvit' / 'wheels'
    return Path(base).expanduser()


def wheel_folder(env: Environment) -> Path:
    """Where the mmcv wheel for this environment's torch, Python and accelerator is kept."""
    code = (
        'import sys, torch; '
        "print(f'torch{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}-', end=''); "
        "print('cuda' if torch.cuda.is_available() else 'cpu')"
    )
    flags = CFLAGS.replace(' ', '')
    return wheel_root() / f'mmcv{env.pins["onedl-mmcv"]}-{env.query(code)}-{platform.machine()}{flags}'


def mmcv_has_ops(env: Environment) -> bool:
    """Whether mmcv and its ops import; mmcv needs mmengine for that, so the stack comes first."""
    return env.works('import torch, mmcv, mmcv._ext')


def check_build_tools(env: Environment) -> None:
    """Refuse before the long downloads if mmcv will have to be compiled and cannot be."""
    if mmcv_has_ops(env) or list(wheel_root().glob(f'mmcv{env.pins["onedl-mmcv"]}-*/*.whl')):
        return
    if not shutil.which(compiler()[0]):
        raise SetupError(f'no C++ compiler ({compiler()[0]}) found; mmcv needs one. On Debian: apt install g++')
    header = Path(env.query("import sysconfig; print(sysconfig.get_paths()['include'])")) / 'Python.h'
    if not header.exists():
        raise SetupError(f'{header} is missing; compiling mmcv needs it. On Debian: apt install python3-dev')


def compiler() -> list:
    """The C++ compiler as a command: $CXX, which may have arguments, or what the system has."""
    return shlex.split(os.environ.get('CXX', '')) or ['c++' if shutil.which('c++') else 'g++']


def install_torch(env: Environment) -> None:
    missing = env.missing(TORCH)
    if missing:
        say(f'installing PyTorch (the default build takes several GB): {", ".join(missing)}')
        env.pip('install', *missing)
    try:
        env.query('import torch, torchvision')
    except SetupError as error:
        raise SetupError(
            f'torch and torchvision do not fit together; both have to come from the same place.\n{error}'
        ) from None


def install_mmcv(env: Environment) -> None:
    """Bring mmcv with compiled ops into the environment: what is there, the kept wheel, or a build."""
    folder = wheel_folder(env)
    # An mmcv that this tool installed is only good for the torch it was compiled against.
    stale = env.mmcv_source.exists() and env.mmcv_source.read_text() != folder.name
    if not stale and mmcv_has_ops(env):
        return
    with locked(folder / 'lock', f'building mmcv in {folder}'):
        wheels = list(folder.glob('*.whl'))
        if not wheels:
            wheels = [build_mmcv(env, folder)]
    say(f'installing {wheels[0]}')
    env.pip('install', '--force-reinstall', '--no-deps', str(wheels[0]), quiet=True)
    env.mmcv_source.write_text(folder.name)
    try:
        env.query('import torch, mmcv._ext')
    except SetupError as error:
        raise SetupError(
            f'mmcv is installed but mmcv._ext does not import. Remove {folder} and run the same make target again to '
            f'compile it anew.\n{error}'
        ) from None


def build_mmcv(env: Environment, folder: Path) -> Path:
    """Compile mmcv's ops against the environment's torch and return the wheel's path."""
    version = env.pins['onedl-mmcv']
    on_gpu = env.works('import torch, sys; sys.exit(not torch.cuda.is_available())')
    if on_gpu and not shutil.which('nvcc'):
        raise SetupError(
            'torch sees a GPU but nvcc is not on PATH, so the CUDA ops of mmcv cannot be compiled. Install a '
            f'prebuilt mmcv ({env.python} -m pip install onedl-mim && {env.folder}/bin/mim install '
            f'onedl-mmcv=={version}) or the CUDA toolkit, then run the same make target again.'
        )
    source = folder / 'build' / f'onedl_mmcv-{version}'
    if not (source / 'PKG-INFO').exists():
        say(f'fetching the source of onedl-mmcv {version}')
        unpack_sdist(env, source)
    jobs = os.environ.get('MAX_JOBS', str(os.cpu_count() or 1))
    say(f'compiling mmcv {version}: {"CUDA" if on_gpu else "CPU"} ops, {jobs} jobs (takes minutes, once)')
    build_env = os.environ | {
        'CXX': shlex.join(compiler()),
        'CFLAGS': CFLAGS,
        'MMCV_WITH_OPS': '1',
        'MAX_JOBS': jobs,
        'PATH': f'{env.python.parent}{os.pathsep}{os.environ["PATH"]}',  # the environment's ninja
        'PYTHONNOUSERSITE': '1',
    }
    built = folder / 'build' / 'dist'
    command = [env.python, '-m', 'pip', '--disable-pip-version-check', 'wheel', '-v', '--no-cache-dir', '--no-deps']
    command += ['--no-build-isolation', '--wheel-dir', built, source]
    log_path = folder / 'build.log'
    start = time.monotonic()
    with (
        open(log_path, 'w') as log,
        subprocess.Popen(
            command, env=build_env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        for line in process.stdout:
            log.write(line)
            log.flush()
            step = re.match(r'\s*\[(\d+)/(\d+)\]', line)
            if step:
                minutes, seconds = divmod(int(time.monotonic() - start), 60)
                say(f'compiling mmcv: {step[1]}/{step[2]} files, {minutes}:{seconds:02d}')
    wheels = list(built.glob('*.whl'))
    if process.returncode or not wheels:
        raise SetupError(
            f'compiling mmcv failed; the log is {log_path}. Finished object files are kept: run the same '
            f'make target again after mending the cause. If memory ran out: MAX_JOBS=1 make ...'
        )
    if not any('_ext' in name for name in wheel_names(wheels[0])):
        raise SetupError(f'{wheels[0]} was built without ops (no mmcv/_ext in it); the log is {log_path}')
    # The rename is what makes the wheel visible to later runs: never a half-written one.
    final = folder / wheels[0].name
    os.replace(wheels[0], final)
    shutil.rmtree(folder / 'build')
    return final


def unpack_sdist(env: Environment, source: Path) -> None:
    source.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=source.parent) as scratch:
        requirement = f'onedl-mmcv=={env.pins["onedl-mmcv"]}'
        env.pip(
            'download', '--no-deps', '--no-cache-dir', '--no-build-isolation', '--no-binary', 'onedl-mmcv',
            '--dest', scratch, requirement, quiet=True,
        )  # fmt: skip
        (archive,) = Path(scratch).glob('*.tar.gz')
        with tarfile.open(archive) as tar:
            # The 'data' filter refuses members that leave the folder; older patch releases of 3.10 lack it.
            tar.extractall(scratch, **({'filter': 'data'} if hasattr(tarfile, 'data_filter') else {}))
        if source.exists():
            shutil.rmtree(source)
        os.replace(Path(scratch) / source.name, source)


def wheel_names(path: Path) -> list:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def install_stack(env: Environment) -> None:
    """The OpenMMLab packages but mmcv (those not there yet under their import name) and everything else pinned."""
    have = env.installed()
    names = []
    for dist, module in STACK.items():
        if dist == 'onedl-mmcv':
            continue
        if dist not in have and env.works(
            f'import importlib.util as u, sys; sys.exit(u.find_spec("{module}") is None)'
        ):
            say(f'keeping the {module} that is installed; {dist} is not added over it')
            continue
        names.append(dist)
    names += [n for n in env.pins if n not in STACK and n not in BUILD_TOOLS and n not in TORCH]
    missing = env.missing(names)
    if missing:
        say(f'installing {", ".join(missing)}')
        have = env.installed()
        with tempfile.NamedTemporaryFile('w', suffix='.txt', prefix='constraints-') as constraints:
            # A stack package must not pull another torch or numpy in.
            constraints.writelines(f'{n}=={have.get(n, v)}\n' for n, v in env.pins.items() if n not in STACK)
            constraints.flush()
            env.pip('install', '--constraint', constraints.name, *missing)


def install_package(env: Environment) -> None:
    say('installing mmstvit (editable)')
    env.pip('install', '--no-deps', '--no-build-isolation', '--editable', str(ROOT), quiet=True)


def verify(env: Environment) -> None:
    code = (
        'import torch, torchvision, mmengine, mmcv, mmcv._ext, mmdet, mmseg, mmpretrain, mmstvit; '
        "print(f'torch {torch.__version__}, torchvision {torchvision.__version__}, mmengine {mmengine.__version__}, "
        'mmcv {mmcv.__version__} with ops, mmdet {mmdet.__version__}, mmseg {mmseg.__version__}, '
        "mmpretrain {mmpretrain.__version__}, mmstvit {mmstvit.__version__}')"
    )
    say(env.query(code).splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--venv', type=Path, default=ROOT / '.venv', help='environment to fill (default: .venv)')
    args = parser.parse_args()
    folder = Path(os.path.abspath(args.venv.expanduser()))  # not resolve(): a venv's python is a symlink
    env = Environment(folder, read_pins())
    stamp = folder / '.mmstvit-setup'

    def ready() -> bool:
        return env.python.exists() and stamp.exists() and stamp.read_text() == fingerprint(folder)

    if ready():
        return
    lock = Path(tempfile.gettempdir()) / f'mmstvit-{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}.lock'
    try:
        with locked(lock, f'filling {folder}'):
            if ready():
                return
            stamp.unlink(missing_ok=True)
            prepare_environment(env)
            check_build_tools(env)
            missing = env.missing(BUILD_TOOLS)
            if missing:
                say(f'installing build tools: {", ".join(missing)}')
                env.pip('install', *missing)
            install_torch(env)
            install_stack(env)
            install_mmcv(env)
            install_package(env)
            verify(env)
            stamp.write_text(fingerprint(folder))
    except SetupError as error:
        sys.exit(f'[setup] error: {error}')
    except KeyboardInterrupt:
        sys.exit('\n[setup] interrupted; the same make target carries on from here')
    say(f'ready: {folder}')


if __name__ == '__main__':
    main()
