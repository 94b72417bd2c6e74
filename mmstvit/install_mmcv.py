"""Compile and install mmcv with its operators, for the torch of this environment.

The package index has no compiled onedl-mmcv, and ``pip install`` compiles it without sight of torch, so without its
operators. This command downloads the source, compiles it for the installed torch, installs it, and calls operators.

It uses only the standard library, because it runs where torch, MMEngine and mmcv are missing or broken.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zlib
from pathlib import Path

NAME, VERSION = 'onedl-mmcv', '2.3.6'
BUILD_TOOLS = ['setuptools>=77,<82', 'wheel', 'packaging', 'ninja', 'psutil']
# CFLAGS replaces Python's own flags, optimization included; -g0 leaves out 30 MB of debug information.
CFLAGS = '-O3 -DNDEBUG -g0'
# Files of pytorch/cpu/ whose names clash with those of the others: they are compiled as one of their own. psamask.cpp
# defines the macros min and max, so it comes last. roi_align.cpp clashes with both and is compiled alone.
ROTATED = ('roi_align_rotated', 'rotated_feature_align', 'psamask')
# Printed as JSON by a process of its own: importing a broken torch may crash.
FACTS = """
import json, os, torch
from torch.utils.cpp_extension import CUDA_HOME
nvcc = bool(CUDA_HOME) and os.path.exists(os.path.join(CUDA_HOME, 'bin', 'nvcc'))
gpus = [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]
archs = '_'.join(sorted({f'sm{major}{minor}' for major, minor in gpus}))
if gpus or os.environ.get('FORCE_CUDA') == '1':
    archs = os.environ.get('TORCH_CUDA_ARCH_LIST') or archs or 'all'
print(json.dumps([torch.__version__, archs, nvcc]))
"""


class InstallError(RuntimeError):
    """A step failed; the message says what to do."""


def log(text: str) -> None:
    """Print a line of progress."""
    print(f'[mmcv] {text}', flush=True)


def wheel_root() -> Path:
    """Return the folder of kept mmcv wheels."""
    cache = os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'
    return Path(os.environ.get('MMSTVIT_WHEEL_DIR') or Path(cache) / 'mmstvit' / 'wheels').expanduser().absolute()


def call_operators() -> str:
    """Call mmcv's NMS and RoIAlign on each device; raises an error if they fail or return wrong values."""
    import torch
    from mmcv.ops import nms, roi_align

    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    for device in devices:
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], device=device)
        kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)[1].tolist()
        x = torch.full((1, 1, 8, 8), 3.0, device=device, requires_grad=True)
        pooled = roi_align(x, torch.tensor([[0.0, 1, 1, 5, 5]], device=device), 2)
        pooled.sum().backward()
        if kept != [0, 2] or (pooled - 3).abs().max() > 1e-4 or abs(x.grad.sum().item() - 4) > 1e-4:
            raise RuntimeError(f'NMS or RoIAlign returns wrong values on {device}')
    return f'NMS and RoIAlign work on {" and ".join(devices)}'


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    """Run code with this interpreter, away from the working directory: a folder there may be called mmcv."""
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)


def find_fault() -> str:
    """Return why the operators of the installed mmcv do not work, or ''."""
    done = run_python(f'{inspect.getsource(call_operators)}\ncall_operators()')
    return last_line(done.stderr) or 'the process crashed' if done.returncode else ''


def last_line(text: str) -> str:
    """Return the last line of an output, which has the message of an exception."""
    return text.strip().rpartition('\n')[2]


def pip(*args: object) -> None:
    """Run pip; raises InstallError."""
    command = [sys.executable, '-m', 'pip', '--disable-pip-version-check', *map(str, args)]
    if subprocess.run(command).returncode:
        raise InstallError(
            f'pip failed: {shlex.join(command)}\n  Its message is above. Check the network and the free disk space '
            '(torch takes about 5 GB by default), then run the same command again.'
        )
    importlib.invalidate_caches()


def compiler() -> str:
    """Return the command of the C++ compiler; without $CXX setuptools would take the one that compiled Python."""
    return os.environ.get('CXX') or 'c++'


def check_compiler() -> None:
    """Refuse an environment in which nothing can be compiled; raises InstallError."""
    program = shlex.split(compiler())[0]
    if not shutil.which(program):
        raise InstallError(f'mmcv needs a C++ compiler, and {program} is not found. On Debian run: apt install g++')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.exists():
        raise InstallError(f'mmcv needs {header}, which does not exist. On Debian run: apt install python3-dev')


def read_torch() -> tuple[str, str, bool]:
    """Return version of torch, CUDA architectures to compile for ('' for the CPU), and True if there is an nvcc."""
    done = run_python(FACTS)
    if done.returncode:
        reason = last_line(done.stderr)
        raise InstallError(f'mmcv is compiled for the installed torch, but importing torch fails: {reason}')
    return tuple(json.loads(last_line(done.stdout)))


def wheel_folder(torch: str, archs: str) -> Path:
    """Return the folder of the wheel for this torch; pip's own cache does not know for which torch it was compiled."""
    python = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    device = re.sub(r'\W+', '_', f'cuda_{archs}' if archs else 'cpu')
    way = f'joined{CFLAGS.replace(" ", "")}'
    return wheel_root() / f'mmcv{VERSION}-torch{torch}-{python}-{platform.machine()}-{way}-{device}'


def is_current(folder: Path) -> bool:
    """Return True if the installed mmcv works, and is not a wheel of ours for another torch or compiled otherwise."""
    try:
        source = importlib.metadata.distribution(NAME).read_text('direct_url.json') or ''
    except importlib.metadata.PackageNotFoundError:
        source = ''
    # One for a GPU stays where there is none at the moment, as on the login node of a cluster.
    name = folder.name.rpartition('-')[0]
    outdated = f'/mmcv{VERSION}-torch' in source and f'/{name}-' not in source.replace('%2B', '+')
    return not outdated and not find_fault()


def join_sources(folder: Path) -> None:
    """Join 76 of the 78 C++ files into three that include them: each file alone reads torch's headers for ten seconds.

    Args:
        folder: ``mmcv/ops/csrc/pytorch`` of the source. Its own files pass an operator to the code of a device; those
            in ``cpu/`` compute. CUDA files stay as they are.
    """
    dispatch = sorted({path.stem for path in folder.glob('*.cpp')} - {'pybind'})
    cpu = sorted({path.stem for path in folder.glob('cpu/*.cpp')} - {'roi_align', *ROTATED})
    for unit, names in ('joined', dispatch), ('cpu/joined', cpu), ('cpu/joined_rotated', ROTATED):
        path = folder / f'{unit}.cpp'
        for name in names:
            (path.parent / f'{name}.cpp').rename(path.parent / f'{name}.inc')
        path.write_text(''.join(f'#include "{name}.inc"\n' for name in names))


def download_source(source: Path) -> None:
    """Download the source of mmcv, and make it compile with every torch, in a quarter of the time."""
    log(f'downloading the source of {NAME} {VERSION}')
    with tempfile.TemporaryDirectory(dir=source.parent) as scratch:
        options = ['--quiet', '--no-deps', '--no-cache-dir', '--no-build-isolation', '--no-binary', NAME]
        pip('download', *options, '--dest', scratch, f'{NAME}=={VERSION}')
        shutil.unpack_archive(next(Path(scratch).glob('*.tar.gz')), scratch)
        unpacked = Path(scratch) / source.name
        # mmcv 2.3.6 sets C++17, which torch 2.14 refuses. Without this, torch sets the standard that it needs.
        script = unpacked / 'setup.py'
        script.write_text(script.read_text().replace("'-std=c++17'", ''))
        join_sources(unpacked / 'mmcv' / 'ops' / 'csrc' / 'pytorch')
        unpacked.rename(source)


def build_wheel(folder: Path) -> Path:
    """Compile mmcv; after an interruption, ninja skips the files that are compiled. Returns the wheel."""
    check_compiler()
    pip('install', '--quiet', *BUILD_TOOLS)
    work = folder / f'build-{zlib.crc32(sys.prefix.encode()):08x}'  # other environments may compile at the same time
    source = work / f'onedl_mmcv-{VERSION}'
    work.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        download_source(source)
    jobs = os.environ.get('MAX_JOBS') or str(len(os.sched_getaffinity(0)))
    log(f'compiling mmcv {VERSION} with {jobs} jobs; this takes minutes, once')
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'  # the environment's ninja
    settings = dict(CXX=compiler(), CFLAGS=CFLAGS, MAX_JOBS=jobs, PATH=path)
    command = [sys.executable, '-m', 'pip', 'wheel', '-v', '--no-cache-dir', '--no-deps', '--no-build-isolation']
    command += ['--wheel-dir', work / 'dist', source]
    start, output = time.monotonic(), work / 'build.log'
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    with open(output, 'w', 1) as log_file, subprocess.Popen(command, env=os.environ | settings, **pipes) as process:
        for line in process.stdout:
            log_file.write(line)
            if step := re.match(r'\s*\[(\d+/\d+)\]', line):
                log(f'compiling mmcv: {step[1]} files, {time.monotonic() - start:.0f} s')
    wheel = next((work / 'dist').glob('*.whl'), None)
    if process.returncode or wheel is None:
        error = re.search(r'(?i).*error: .*', output.read_text())
        raise InstallError(
            f'compiling mmcv failed. {error[0].strip() if error else ""}\n  The log is {output}. Compiled files are '
            'kept: fix the cause and run the same command again. If memory ran out: MAX_JOBS=1'
        )
    os.replace(wheel, folder / wheel.name)  # atomic: a later call sees a whole wheel or none
    shutil.rmtree(work)
    return folder / wheel.name


def install(force: bool = False) -> None:
    """Install mmcv, unless a working one is there."""
    if importlib.util.find_spec('mmengine') is None:
        raise InstallError('mmcv needs MMEngine, which is not installed. First run: pip install onedl-mmengine')
    torch, archs, nvcc = read_torch()
    folder = wheel_folder(torch, archs)
    if not force and is_current(folder):
        log('mmcv works: nothing to do')
        return
    others = {*importlib.metadata.packages_distributions().get('mmcv', ())} - {NAME}
    if others:
        names = ' '.join(sorted(others))
        raise InstallError(f'{names} installs mmcv, too, and does not work. First run: pip uninstall -y {names}')
    wheel = None if force else next(folder.glob('*.whl'), None)
    if not wheel and archs and not nvcc:
        raise InstallError(
            'torch finds a GPU, but nvcc is missing, which compiles the CUDA operators of mmcv. Install the CUDA '
            f'toolkit for torch {torch}, or a compiled mmcv if one exists: pip install onedl-mim && mim install {NAME}'
        )
    wheel = wheel or build_wheel(folder)
    log(f'installing {wheel}')
    pip('install', '--quiet', '--force-reinstall', '--no-deps', wheel)
    if fault := find_fault():
        raise InstallError(f'mmcv is installed, but fails: {fault}. Run again with --force')
    log(f'mmcv {VERSION} works')


def check() -> None:
    """Check that mmcv works, has a kept wheel, or can be compiled; raises InstallError."""
    if find_fault() and not list(wheel_root().glob(f'mmcv{VERSION}-*/*.whl')):
        check_compiler()


def main(args: list[str] | None = None) -> None:
    """Run the command; exits with 1 after an error."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--force', action='store_true', help='compile and install again, although mmcv works')
    parser.add_argument('--dry-run', action='store_true', help='only check that mmcv works, or can be compiled')
    args = parser.parse_args(args)
    try:
        check() if args.dry_run else install(args.force)
    except (InstallError, KeyboardInterrupt) as error:
        sys.exit(f'error: {str(error) or "interrupted; run the same command to continue"}')


if __name__ == '__main__':
    main()
