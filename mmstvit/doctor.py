"""Check an installation: one line per check, and a remedy for each fault.

Every library is imported in a process of its own, because importing a broken binary may crash or hang. This module
imports only the standard library, so that it starts where torch or mmengine is missing.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import mmap
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .command_line import add_cfg_options
from .dependencies import CORE, LIBRARIES, DependencyError, reinstall, require, require_library
from .version import __version__

PACKAGE = Path(__file__).resolve().parent
TIMEOUT = 300  # seconds for one process
GIB = 2**30
OK, WARNING, FAILED = 'ok', 'warning', 'FAILED'


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``FAILED`` if training could not start."""

    name: str
    status: str
    detail: str
    remedy: str = ''

    def __str__(self) -> str:
        line = f'{self.status:<7}  {self.name:<16}  {self.detail}'
        return f'{line}\n{"":<27}→ {self.remedy}' if self.remedy else line


# Checks of installed files and limits: standard library only, in the process of the doctor.


def check_distributions() -> Finding:
    """Check that no two distributions install the same package, as the original OpenMMLab and OneDL ones would."""
    providers = importlib.metadata.packages_distributions()
    for name, (_, command) in {**CORE, **LIBRARIES}.items():
        found = sorted(set(providers.get(name, ())))
        if len(found) > 1 and name != 'torch':
            return Finding(
                'distributions',
                WARNING,
                f'{" and ".join(found)} both install {name} and overwrite each other',
                f'Run: pip uninstall -y {" ".join(found)}, then: {command}',
            )
    return Finding('distributions', OK, 'no two install the same package')


def check_versions() -> Finding:
    """Compare installed versions with requirements/tested.txt, which is a part of a checkout, not of a wheel."""
    pins = PACKAGE.parent / 'requirements' / 'tested.txt'
    if not pins.exists():
        return Finding('versions', OK, 'not compared with the tested ones')
    newer = []
    for name, tested in re.findall(r'^(torch|torchvision|numpy|onedl-\w+)==(.+)', pins.read_text(), re.MULTILINE):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            major_minor = [[int(part) for part in re.findall(r'\d+', v)[:2]] for v in (version, tested)]
            if major_minor[0] > major_minor[1]:
                newer.append(f'{name} {version} (tested: {tested})')
    if newer:
        remedy = 'If something fails, install the tested versions.'
        return Finding('versions', WARNING, f'newer than tested: {", ".join(newer)}', remedy)
    return Finding('versions', OK, 'none is newer than tested')


def check_installation() -> Finding:
    """Check that the tools import this mmstvit, although they do not search the working directory, and its configs."""
    code = "import importlib.util as u; spec = u.find_spec('mmstvit'); print(spec.origin if spec else '')"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)
    origin, mim = done.stdout.strip(), PACKAGE / '.mim' / 'configs'
    status, detail = OK, str(PACKAGE)
    if not origin:
        status, detail = FAILED, f'mmstvit is not installed in {sys.prefix}, so the tools cannot import it'
    elif Path(origin).resolve().parent != PACKAGE:
        status, detail = WARNING, f'the tools import {Path(origin).parent}, but this command checks {PACKAGE}'
    elif not mim.exists():
        status, detail = WARNING, f"{mim} does not exist: 'mmstvit::…' in configs, mim and mmengine.hub fail"
    source = f'-e {PACKAGE.parent}' if (PACKAGE.parent / 'setup.py').is_file() else 'mmstvit'
    remedy = f'Run: {sys.executable} -m pip install --force-reinstall --no-deps {source}'
    return Finding('installation', status, detail, '' if status == OK else remedy)


def check_shared_memory(folder: str = '/dev/shm') -> Finding:
    """Check the shared memory, through which data loader workers pass batches; containers have 64 MiB by default."""
    if not os.path.isdir(folder):
        return Finding('shared memory', OK, f'this system has no {folder}')
    usage = shutil.disk_usage(folder)
    detail = f'{usage.free / GIB:.2f} GiB of {usage.total / GIB:.2f} GiB are free in {folder}'
    if usage.free < GIB:
        remedy = (
            'Start the container with --shm-size=8g or --ipc=host, or train with --cfg-options '
            'train_dataloader.num_workers=0 train_dataloader.persistent_workers=False (likewise val, test).'
        )
        return Finding('shared memory', WARNING, f'{detail}: workers may die with a bus error', remedy)
    return Finding('shared memory', OK, detail)


# Probes: each runs in a process of its own. An exception is a finding, too.


def probe_gpu() -> Iterator[Finding]:
    """Compute on each GPU; say why torch uses none where the driver knows one."""
    import torch

    for index in range(torch.cuda.device_count()):
        x = torch.ones(64, 64, device=f'cuda:{index}')
        if (x @ x).sum().item() != 64**3:
            raise RuntimeError(f'GPU {index} returns a wrong matrix product')
        free, total = torch.cuda.mem_get_info(index)
        detail = f'{torch.cuda.get_device_name(index)}, {free / GIB:.0f} GiB of {total / GIB:.0f} GiB are free'
        yield Finding(f'gpu {index}', OK, detail)
    if torch.cuda.device_count():
        return
    driver = ''
    if shutil.which('nvidia-smi'):
        command = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        driver = '' if done.returncode else done.stdout.partition('\n')[0]
    if not driver:
        yield Finding('gpu', OK, 'none found: training runs on the CPU')
    elif os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        yield Finding('gpu', WARNING, f'CUDA_VISIBLE_DEVICES hides {driver}', 'Run: unset CUDA_VISIBLE_DEVICES')
    elif torch.version.cuda is None:
        remedy = 'Install a CUDA build of torch and torchvision (pytorch.org), then mmcv again: docs/install.md.'
        yield Finding('gpu', WARNING, f'{driver} is there, but torch {torch.__version__} is built for the CPU', remedy)
    else:
        remedy = 'Update the driver, or install a torch for an older CUDA; nvidia-smi names the newest CUDA supported.'
        yield Finding('gpu', WARNING, f'torch for CUDA {torch.version.cuda} cannot use {driver}', remedy)


def probe_torchvision() -> Iterator[Finding]:
    """Call an operator of torchvision, which fails if it was built for another torch."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([0.9]), 0.5)
    yield Finding('torchvision', OK, torchvision.__version__)


def probe_mmcv_ops() -> Iterator[Finding]:
    """Call mmcv's NMS and RoIAlign on each device, and tell an unoptimized build."""
    import torch
    from mmcv import _ext
    from mmcv.ops import get_compiling_cuda_version, nms, roi_align

    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    for device in devices:
        boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], device=device)
        kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)[1].tolist()
        x = torch.full((1, 1, 8, 8), 3.0, device=device, requires_grad=True)
        pooled = roi_align(x, torch.tensor([[0.0, 1, 1, 5, 5]], device=device), 2)
        pooled.sum().backward()
        if kept != [0, 2] or (pooled - 3).abs().max() > 1e-4 or abs(x.grad.sum().item() - 4) > 1e-4:
            raise RuntimeError(f'NMS or RoIAlign returns wrong values on {device}')
    # The host code of a CUDA build is compiled by nvcc with other flags.
    if get_compiling_cuda_version() == 'not available' and is_unoptimized(Path(_ext.__file__)):
        detail = 'compiled without optimization (-O0): RoIAlign and NMS take 2 to 3 times as long'
        command = reinstall(CORE['mmcv'][1])
        yield Finding('mmcv ops', WARNING, detail, f'Run: pip uninstall -y onedl-mmcv mmcv, then: {command}')
    else:
        yield Finding('mmcv ops', OK, f'NMS and RoIAlign work on {" and ".join(devices)}')


def is_unoptimized(library: Path) -> bool:
    """Return True if a C++ library of GCC or Clang was compiled without optimization.

    ``std::vector::size`` is then a function with a symbol; any optimization level inlines all its calls.
    """
    with open(library, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return re.search(rb'_ZNKSt(3__1)?6vectorI\w+E4sizeEv', content) is not None


def probe_mmstvit() -> Iterator[Finding]:
    """Run a model forward and backward on each device."""
    import torch

    from mmstvit import STViT
    from mmstvit.ops import describe

    for device in ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']:
        model = STViT('nano').to(device)
        loss = sum(x.square().mean() for x in model(torch.randn(1, 3, 64, 64, device=device)))
        loss.backward()
        if not all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None):
            raise RuntimeError(f'the gradients of STViT have NaN or Inf on {device}')
        yield Finding(f'mmstvit, {device}', OK, f'{__version__}, backend {describe(device)}')


def probe_library(name: str) -> Iterator[Finding]:
    """Import mmdet, mmseg or mmpretrain, and build an STViT from its registry."""
    try:
        library = require_library(name)
    except DependencyError as error:
        missing = getattr(error.__cause__, 'name', '') == name
        yield Finding(name, WARNING if missing else FAILED, error.problem, error.remedy)
        return
    importlib.import_module(f'{name}.registry').MODELS.build(dict(type='mmstvit.STViT', arch='nano'))
    yield Finding(name, OK, f"{library.__version__}, builds 'mmstvit.STViT'")


def probe_config(file: str, cfg_options: list[str]) -> Iterator[Finding]:
    """Check the library, model, weights, data and loggers of a config."""
    from mmstvit import apis
    from mmstvit.checkpoint import to_mmstvit
    from mmstvit.fileio import safe_loading

    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    options = parser.parse_args(['--cfg-options', *cfg_options] if cfg_options else []).cfg_options

    def attempt(name: str, good: str, action: Callable, *args: object) -> tuple[Finding, object]:
        try:
            return Finding(name, OK, good), action(*args)
        except (apis.UserError, ImportError) as error:
            return Finding(name, FAILED, *_explain(error)), None

    finding, cfg = attempt('config', file, apis.read_config, file, options)
    yield finding
    if cfg is None:
        return
    finding, model = attempt('model', 'it can be built', apis.check_model, cfg, True)
    yield finding
    if model is not None:
        with safe_loading(convert=to_mmstvit):
            finding, _ = attempt('pretrained', 'the files exist', apis.check_pretrained, cfg)
            if finding.status == OK:
                finding, _ = attempt('pretrained', 'the weights fit the model', apis.check_weights, cfg, model)
        yield finding
    for split in ('train', 'val', 'test'):
        finding, _ = attempt(f'data, {split}', 'every file and folder exists', apis.check_data, cfg, split)
        # Training does not need the test data.
        yield as_warning(finding) if split == 'test' else finding


def as_warning(finding: Finding) -> Finding:
    """Return a finding that does not prevent training."""
    return dataclasses.replace(finding, status=WARNING) if finding.status == FAILED else finding


def _explain(error: Exception) -> tuple[str, str]:
    """Return the problem and the remedy of an exception; other packages' exceptions have no remedy."""
    if hasattr(error, 'remedy'):
        return error.problem, error.remedy
    return f'{type(error).__name__}: {error}', ''


_TORCHVISION = 'Install the torchvision that belongs to this torch: pip install --force-reinstall torch torchvision'
# Name -> the probe, and the remedy for an exception or a crash.
PROBES = {
    'gpu': (probe_gpu, 'Run nvidia-smi: is the GPU in use? CUDA_VISIBLE_DEVICES="" trains on the CPU.'),
    'torchvision': (probe_torchvision, _TORCHVISION),
    'mmcv ops': (probe_mmcv_ops, f'Run: {reinstall(CORE["mmcv"][1])}'),
    'mmstvit': (probe_mmstvit, 'Try MMSTVIT_BACKEND=torch, and report the fault with the output of this command.'),
    **{name: (functools.partial(probe_library, name), f'Run: {reinstall(LIBRARIES[name][1])}') for name in LIBRARIES},
    'config': (probe_config, ''),
}


def answer(name: str, *arguments: object) -> None:
    """Run a probe and print its findings as JSON lines: the other side of :func:`ask`."""
    probe, remedy = PROBES[name]
    with os.fdopen(os.dup(1), 'w') as channel:
        os.dup2(2, 1)  # libraries print to the standard output, too
        try:
            for finding in probe(*arguments):
                print(json.dumps(vars(finding)), file=channel, flush=True)
        except Exception as error:
            problem, own_remedy = _explain(error)
            print(json.dumps(vars(Finding(name, FAILED, problem, own_remedy or remedy))), file=channel)


def ask(name: str, *arguments: object) -> list[Finding]:
    """Run a probe of :data:`PROBES` in a process of its own; a crash or a hang there is a finding."""
    command = [sys.executable, '-m', 'mmstvit.doctor', '--probe', json.dumps([name, *arguments])]
    remedy = PROBES[name][1]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return [Finding(name, FAILED, f'not finished after {TIMEOUT} s', remedy)]
    findings = [Finding(**json.loads(line)) for line in done.stdout.splitlines()]
    if done.returncode:
        code = done.returncode
        end = f'killed by {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
        said = done.stderr.strip().rpartition('\n')[2]
        findings.append(Finding(name, FAILED, f'its process ended with {end}. Last output: {said}', remedy))
    return findings


def check_core() -> Iterator[Finding]:
    """Check the packages that ``import mmstvit`` has tried to import; stop at the first fault."""
    for name in CORE:
        try:
            yield Finding(name, OK, require(name, *CORE[name]).__version__)
        except ImportError as error:
            yield Finding(name, FAILED, *_explain(error))
            yield Finding('everything else', WARNING, f'not checked, because it needs {name}')
            return


def run_probes(configs: list[str], cfg_options: list[str]) -> Iterator[Finding]:
    """Run the probes side by side, and those of the configs after them."""
    usable = False
    names = [name for name in PROBES if name != 'config']
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, findings in zip(names, pool.map(ask, names), strict=True):
            usable |= name in LIBRARIES and any(finding.status == OK for finding in findings)
            # With a config, its own probe decides which library is needed.
            yield from map(as_warning, findings) if configs and name in LIBRARIES else findings
        if not usable:
            remedy = "Run: pip install -e '.[onedl]' in a clone of mmstvit (docs/install.md)"
            yield Finding('libraries', FAILED, f'none of {", ".join(LIBRARIES)} works; a config needs one', remedy)
            return
        for findings in pool.map(lambda file: ask('config', file, cfg_options), configs):
            yield from findings


def diagnose(configs: list[str], cfg_options: list[str]) -> Iterator[Finding]:
    """Run all checks."""
    yield Finding('python', OK, f'{platform.python_version()} in {sys.prefix}')
    yield from (check_distributions(), check_versions(), check_installation(), check_shared_memory())
    status = OK
    for finding in check_core():
        status = finding.status
        yield finding
    if status == OK:
        yield from run_probes(configs, cfg_options)


def describe_environment() -> dict[str, str]:
    """Return what a bug report needs, with the facts that MMEngine collects if it works."""
    facts = {'mmstvit': f'{__version__} in {PACKAGE}', 'platform': platform.platform()}
    facts |= {f'${name}': value for name, value in os.environ.items() if re.match('MMSTVIT_|CUDA_|TRITON_|OMP_', name)}
    with contextlib.suppress(Exception):
        from mmengine.utils.dl_utils import collect_env

        facts |= {name: str(value) for name, value in collect_env().items() if name != 'numpy_random_seed'}
    return facts


def main(args: list[str] | None = None) -> int:
    """Run the doctor; returns 1 if training could not start, else 0."""
    parser = argparse.ArgumentParser(
        prog='mmstvit doctor',
        description='Check an installation: one line per check, and a remedy for each fault.',
        epilog='Exit code 1 if training could not start, else 0. A library that is not installed is a warning as long '
        'as another one works.',
    )
    parser.add_argument('config', nargs='*', help='check also what these configs need: library, weights, data')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='override settings of the configs, as in train.py')
    parser.add_argument('--probe', help=argparse.SUPPRESS)
    args = parser.parse_args(args)
    if args.probe is not None:
        answer(*json.loads(args.probe))
        return 0
    sys.stdout.reconfigure(errors='replace')  # a terminal may not have the arrow
    statuses = []
    for finding in diagnose(args.config, args.cfg_options):
        statuses.append(finding.status)
        print(finding, flush=True)
    facts = describe_environment()
    print('\nenvironment', *(f'  {name}: {value}'.replace('\n', '\n    ') for name, value in facts.items()), sep='\n')
    counts = ', '.join(f'{statuses.count(status)} {status}' for status in (OK, WARNING, FAILED))
    print(f'\n{"Training cannot start" if FAILED in statuses else "Training can start"}: {counts}')
    return int(FAILED in statuses)


if __name__ == '__main__':
    sys.exit(main())
