"""Checks that need the standard library alone: interpreter, installed distributions, files, limits, disk."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..dependencies import CORE, LIBRARIES
from ..version import __version__
from .findings import FAILED, OK, WARNING, Finding

PACKAGE = Path(__file__).resolve().parents[1]
MIM_FILES = ('configs', 'tools', 'model-index.yml')  # as setup.py puts them there
TESTED_PYTHON = ((3, 10), (3, 12))
REPORTED = ('torch', 'torchvision', 'triton', 'numpy', 'safetensors', 'pycocotools', 'faster-coco-eval')
MIB, GIB = 2**20, 2**30


def facts() -> dict[str, str]:
    """What a bug report should say, as far as it can be known without importing anything."""
    found = {
        'mmstvit': f'{__version__} in {PACKAGE}',
        'Python': f'{platform.python_version()} in {sys.prefix}',
        'platform': f'{platform.platform()}, {os.cpu_count()} CPUs',
    }
    found |= {name: version for name, version in sorted(_installed().items()) if _is_reported(name)}
    variables = [name for name in os.environ if name.startswith(('MMSTVIT_', 'CUDA_', 'TRITON_', 'OMP_'))]
    return found | {f'${name}': os.environ[name] for name in sorted(variables)}


def _installed() -> dict[str, str]:
    """Names of the installed distributions, as the package index writes them, and their versions."""
    names = ((d.metadata['Name'], d.version) for d in importlib.metadata.distributions())
    return {re.sub(r'[-_.]+', '-', name).lower(): version for name, version in names if name}


def _is_reported(name: str) -> bool:
    return name in REPORTED or re.match(r'(onedl-)?mm(engine|cv|det|seg|pretrain)|opencv', name) is not None


def checks(work_dir: Path | None) -> Iterator[Finding]:
    """All of this page.

    Args:
        work_dir: Where a run would write; None if the configs say that.
    """
    yield _python()
    yield from _duplicates()
    yield from _tested()
    yield _installation()
    yield _mim()
    yield from _shared_memory()
    yield from _open_files()
    if work_dir is not None:
        yield disk('disk', work_dir)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] > TESTED_PYTHON[1]:
        low, high = ('.'.join(map(str, v)) for v in TESTED_PYTHON)
        return Finding(
            'python',
            WARNING,
            f'{version} is newer than what was tested ({low} to {high})',
            f'python{high} -m venv .venv',
        )
    return Finding('python', OK, version)


def _duplicates() -> Iterator[Finding]:
    """The original OpenMMLab distributions and the OneDL line share import names, and so overwrite each other."""
    remedies = {name: remedy for name, (_, remedy) in {**CORE, **LIBRARIES}.items()}
    providers = importlib.metadata.packages_distributions()
    twice = {name: sorted(set(providers.get(name, ()))) for name in remedies if name != 'torch'}
    twice = {name: distributions for name, distributions in twice.items() if len(distributions) > 1}
    for name, distributions in twice.items():
        yield Finding(
            'distributions',
            WARNING,
            f'{" and ".join(distributions)} both install {name}, each over the files of the other',
            f'pip uninstall -y {" ".join(distributions)}, then {remedies[name]}',
        )
    if not twice:
        yield Finding('distributions', OK, 'no two share an import name')


def _tested() -> Iterator[Finding]:
    """Versions against those that were tested together; the list comes with the source, not with a wheel."""
    pins = PACKAGE.parent / 'requirements' / 'tested.txt'
    if not pins.is_file():
        return
    lines = (line.partition('#')[0].strip() for line in pins.read_text().splitlines())
    tested = dict(line.split('==') for line in lines if line)
    installed = _installed()
    names = [name for name in tested if _is_reported(name) and name in installed]
    if not names:
        return
    newer = [name for name in names if _release(installed[name]) > _release(tested[name])]
    if newer:
        yield Finding(
            'versions',
            WARNING,
            'newer than what was tested: ' + ', '.join(f'{n} {installed[n]} ({tested[n]})' for n in newer),
            'if something fails: pip install ' + ' '.join(f'{n}=={tested[n]}' for n in newer if n != 'onedl-mmcv'),
        )
    else:
        other = [f'{n} {installed[n]} ({tested[n]})' for n in names if installed[n].partition('+')[0] != tested[n]]
        yield Finding(
            'versions', OK, f'other than the tested: {", ".join(other)}' if other else 'those that were tested'
        )


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number."""
    return tuple(int(part) for part in re.findall(r'\d+', version)[:2])


def _installation() -> Finding:
    """Whether a tool, which does not have the working directory on its path, imports the package that runs here."""
    code = "import importlib.util as u; spec = u.find_spec('mmstvit'); print(spec.origin if spec else '')"
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run([sys.executable, '-c', code], cwd=elsewhere, capture_output=True, text=True)
    origin = done.stdout.strip().rpartition('\n')[2]
    if done.returncode or not origin:
        reason = done.stderr.strip().rpartition('\n')[2]
        return Finding(
            'installation',
            FAILED,
            f'tools/train.py would not find mmstvit{f" ({reason})" if reason else ""}: it is not installed in '
            f'{sys.prefix}',
            f'{sys.executable} -m pip install -e {PACKAGE.parent}',
        )
    if Path(origin).resolve().parent != PACKAGE:
        return Finding(
            'installation',
            WARNING,
            f'tools would import {Path(origin).parent}, not {PACKAGE}, which is looked at here',
            f'{sys.executable} -m pip install -e {PACKAGE.parent}',
        )
    return Finding('installation', OK, str(PACKAGE))


def _mim() -> Finding:
    """Configs and tools where ``mim``, ``mmengine.hub`` and ``_base_ = 'mmstvit::…'`` look for them."""
    folder = PACKAGE / '.mim'
    missing = [name for name in MIM_FILES if not (folder / name).exists()]
    if not missing and not any((folder / 'configs').rglob('*.py')):
        missing = ['any config under configs']
    if missing:
        source = f'-e {PACKAGE.parent}' if (PACKAGE.parent / 'setup.py').is_file() else 'mmstvit (name its source)'
        return Finding(
            'mim',
            WARNING,
            f"{folder} lacks {', '.join(missing)}: 'mmstvit::…' in configs, mim and model names do not work",
            f'{sys.executable} -m pip install --force-reinstall --no-deps {source}',
        )
    return Finding('mim', OK, f'{", ".join(MIM_FILES)} in {folder}')


def _shared_memory(folder: str = '/dev/shm') -> Iterator[Finding]:
    """Data loaders' workers hand batches over through shared memory, of which containers have 64 MiB by default."""
    if not os.path.isdir(folder):  # not Linux
        return
    usage = shutil.disk_usage(folder)
    seen = f'{usage.free / GIB:.2f} GiB of {usage.total / GIB:.2f} GiB are free in {folder}'
    if usage.free < GIB:
        yield Finding(
            'shared memory',
            WARNING,
            f'{seen}: with large batches, workers of data loaders die of a bus error',
            'docker run --shm-size=8g (or --ipc=host); without that, train with --cfg-options '
            'train_dataloader.num_workers=0 train_dataloader.persistent_workers=False (likewise val, test)',
        )
    else:
        yield Finding('shared memory', OK, seen)


def _open_files(least: int = 1024) -> Iterator[Finding]:
    """Every tensor on its way from a worker holds a file open."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    unlimited = resource.RLIM_INFINITY
    soft, hard = (float('inf') if n == unlimited else n for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    if soft >= least:
        yield Finding('open files', OK, f'up to {soft}')
    else:
        yield Finding(
            'open files',
            WARNING,
            f"the limit is {soft}: workers of data loaders may end in 'Too many open files'",
            f'ulimit -n {min(hard, 4 * least)}'
            if hard > soft
            else f'raise the hard limit, which is {hard} too (limits.conf; docker run --ulimit nofile=65536)',
        )


def disk(name: str, work_dir: Path, checkpoint: int | None = None) -> Finding:
    """Whether a run can write where it would.

    Args:
        name: Of the finding.
        work_dir: The folder; it need not exist.
        checkpoint: Bytes of one checkpoint; None if no config says.

    Returns:
        The finding; a failure only if a checkpoint's size is given, because only then a run is meant to write there.
    """
    fault = WARNING if checkpoint is None else FAILED
    folder = Path(os.path.abspath(work_dir))
    while not folder.exists():
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        remedy = (
            '--work-dir FOLDER, or change to another folder' if folder.is_dir() else 'remove it, or --work-dir FOLDER'
        )
        return Finding(name, fault, f'{folder} is no folder that can be written to; {work_dir} would be there', remedy)
    free = shutil.disk_usage(folder).free
    seen = f'{free / GIB:.1f} GiB are free for {work_dir}'
    # A new checkpoint is written beside the old one, which goes only then.
    need = 2 * (checkpoint or GIB)
    if free >= need:
        return Finding(name, OK, seen)
    detail = seen if checkpoint is None else f'{seen}; two checkpoints take {need / GIB:.1f} GiB'
    return Finding(name, fault, detail, 'free some space, or --work-dir FOLDER on another disk')
