"""Check an installation: one line per check, and a remedy for each fault.

Every library is imported in a process of its own, because importing a broken binary may crash or hang. This module
imports only the standard library, so that it starts where torch or mmengine is missing.
"""

import argparse
import functools
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from .command_line import add_cfg_options
from .dependencies import CORE, LIBRARIES, reinstall, require, require_library
from .errors import UserError
from .install_mmcv import call_operators
from .version import __version__

PACKAGE = Path(__file__).resolve().parent
TIMEOUT = 300  # seconds for one process
GIB = 2**30
OK, WARNING, FAILED = 'ok', 'warning', 'FAILED'
USES = {'mmdet': 'detectors', 'mmseg': 'segmentors', 'mmpretrain': 'classifiers'}


@dataclass(frozen=True)
class CheckResult:
    """One line of the report; ``FAILED`` if training could not start."""

    name: str
    status: str
    detail: str
    remedy: str = ''

    def __str__(self) -> str:
        line = f'{self.status:<7}  {self.name:<16}  {self.detail}'
        return f'{line}\n{"":<27}→ {self.remedy}' if self.remedy else line


class Doubt(UserError):
    """A problem that does not prevent training."""


def run_check(name: str, remedy: str, function: Callable, *args: object, good: str = '') -> CheckResult:
    """Call a check, which returns what is good (or ``good`` says it) and raises what is wrong.

    ``remedy`` is for exceptions that do not have one of their own.
    """
    try:
        result = function(*args)
        return CheckResult(name, OK, good or result)
    except Exception as error:
        detail = error.problem if isinstance(error, UserError) else f'{type(error).__name__}: {error}'
        status = WARNING if isinstance(error, Doubt) else FAILED
        return CheckResult(name, status, detail, getattr(error, 'remedy', '') or remedy)


# Checks of installed files and limits: standard library only, in the process of the doctor.


def check_distributions() -> str:
    """Check that no two distributions install the same package, as the original OpenMMLab and OneDL ones would."""
    providers = importlib.metadata.packages_distributions()
    for name, (_, command) in {**CORE, **LIBRARIES}.items():
        found = sorted(set(providers.get(name, ())))
        if len(found) > 1 and name != 'torch':
            problem = f'{" and ".join(found)} both install {name} and overwrite each other'
            raise Doubt(problem, f'Run: pip uninstall -y {" ".join(found)}, then: {command}')
    return 'no two install the same package'


def check_installation() -> str:
    """Check that the tools import this mmstvit, although they do not search the working directory, and its configs."""
    code = "import importlib.util as u; spec = u.find_spec('mmstvit'); print(spec.origin if spec else '')"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, '-c', code], cwd=folder, capture_output=True, text=True)
    origin, mim = done.stdout.strip(), PACKAGE / '.mim' / 'configs'
    source = f'-e {PACKAGE.parent}' if (PACKAGE.parent / 'setup.py').is_file() else 'mmstvit'
    remedy = f'Run: {sys.executable} -m pip install --force-reinstall --no-deps {source}'
    if not origin:
        raise UserError(f'mmstvit is not installed in {sys.prefix}, so the tools cannot import it', remedy)
    if Path(origin).resolve().parent != PACKAGE:
        raise Doubt(f'the tools import {Path(origin).parent}, but this command checks {PACKAGE}', remedy)
    if not mim.exists():
        raise Doubt(f"{mim} does not exist: 'mmstvit::…' in configs, mim and mmengine.hub fail", remedy)
    return str(PACKAGE)


def check_shared_memory() -> str:
    """Check the shared memory, through which data loader workers pass batches; containers have 64 MiB by default."""
    if not os.path.isdir('/dev/shm'):
        return 'this system has no /dev/shm'
    free = shutil.disk_usage('/dev/shm').free / GIB
    if free < 1:
        remedy = 'Start the container with --shm-size=8g, or train with --cfg-options train_dataloader.num_workers=0 '
        remedy += 'train_dataloader.persistent_workers=False (likewise val, test).'
        raise Doubt(f'{free:.2f} GiB are free in /dev/shm: workers may die with a bus error', remedy)
    return f'{free:.2f} GiB are free in /dev/shm'


# Probes: each runs in a process of its own.


def probe_core() -> str:
    """Import torch, MMEngine and mmcv."""
    return ', '.join(f'{name} {require(name, *CORE[name]).__version__}' for name in CORE)


def probe_gpu() -> str:
    """Compute on each GPU; say why torch uses none where the driver knows one."""
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        x = torch.ones(64, 64, device=f'cuda:{index}')
        if (x @ x).sum().item() != 64**3:
            raise RuntimeError(f'GPU {index} returns a wrong matrix product')
        gpus.append(f'{torch.cuda.get_device_name(index)}, {torch.cuda.mem_get_info(index)[0] / GIB:.0f} GiB are free')
    command = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    done = shutil.which(command[0]) and subprocess.run(command, capture_output=True, text=True, timeout=60)
    if gpus or not done or done.returncode or not done.stdout.strip():
        return '; '.join(gpus) or 'none found: training runs on the CPU'
    driver = done.stdout.partition('\n')[0]
    if os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1'):
        raise Doubt(f'CUDA_VISIBLE_DEVICES hides {driver}', 'Run: unset CUDA_VISIBLE_DEVICES')
    if torch.version.cuda is None:
        remedy = 'Install a CUDA build of torch and torchvision (pytorch.org), then run: mmstvit install-mmcv'
        raise Doubt(f'{driver} is there, but torch {torch.__version__} is built for the CPU', remedy)
    remedy = 'Update the driver, or install a torch for an older CUDA; nvidia-smi names the newest CUDA supported.'
    raise Doubt(f'torch for CUDA {torch.version.cuda} cannot use {driver}', remedy)


def probe_torchvision() -> str:
    """Call an operator of torchvision, which fails if it was built for another torch."""
    import torch
    import torchvision

    torchvision.ops.nms(torch.tensor([[0.0, 0, 4, 4]]), torch.tensor([0.9]), 0.5)
    return torchvision.__version__


def probe_mmstvit() -> str:
    """Run a model forward and backward on each device."""
    import torch

    from mmstvit import STViT
    from mmstvit.ops import describe

    devices = ['cpu', 'cuda'] if torch.cuda.is_available() else ['cpu']
    for device in devices:
        model = STViT('nano').to(device)
        sum(x.square().mean() for x in model(torch.randn(1, 3, 64, 64, device=device))).backward()
        if not all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None):
            raise RuntimeError(f'the gradients of STViT have NaN or Inf on {device}')
    return '; '.join([__version__, *(f'{device}: backend {describe(device)}' for device in devices)])


def probe_operators() -> str:
    """Call the operators of mmcv."""
    if importlib.util.find_spec('mmcv._ext') is None:
        raise Doubt('not installed: needed for detectors and segmentors only', f'Run: {CORE["mmcv"][1]}')
    return call_operators()


def probe_library(name: str) -> str:
    """Import mmdet, mmseg or mmpretrain, and build an STViT from its registry."""
    if importlib.util.find_spec(name) is None:
        raise Doubt(f'not installed: needed for {USES[name]} only', f'Run: {LIBRARIES[name][1]}')
    library = require_library(name)
    importlib.import_module(f'{name}.registry').MODELS.build(dict(type='mmstvit.STViT', arch='nano'))
    return f"{library.__version__}, builds 'mmstvit.STViT'"


def probe_config(file: str, cfg_options: list[str]) -> Iterator[CheckResult]:
    """Check the library, model, weights and data of a config."""
    from mmstvit import apis
    from mmstvit.checkpoint import to_mmstvit
    from mmstvit.fileio import safe_loading

    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    options = parser.parse_args(['--cfg-options', *cfg_options] if cfg_options else []).cfg_options

    def build_model() -> object:
        return apis.check_trainable(apis.build_model(cfg))

    def check_weights() -> None:
        with safe_loading(convert=to_mmstvit):
            apis.check_pretrained(cfg)
            apis.check_weights(cfg, build_model())

    yield (read := run_check('config', '', apis.read_config, file, options, good=file))
    if read.status == FAILED:
        return
    cfg = apis.read_config(file, options)
    yield (model := run_check('model', '', build_model, good='it can be built'))
    if model.status == OK:
        yield run_check('pretrained', '', check_weights, good='the files exist, and the weights fit the model')
    for split in ('train', 'val', 'test'):
        data = run_check(f'data, {split}', '', apis.check_data, cfg, split, good='every file and folder exists')
        yield as_warning(data) if split == 'test' else data  # training does not need the test data


def as_warning(result: CheckResult) -> CheckResult:
    """Return a result that does not prevent training."""
    return replace(result, status=WARNING) if result.status == FAILED else result


_TORCH = 'Install torch and the torchvision that belongs to it: pip install --force-reinstall torch torchvision'
# Name -> the probe, and the remedy for a crash or for an exception of another package.
PROBES = {
    'core': (probe_core, _TORCH),
    'gpu': (probe_gpu, 'Run nvidia-smi: is the GPU in use? CUDA_VISIBLE_DEVICES="" trains on the CPU.'),
    'torchvision': (probe_torchvision, _TORCH),
    'mmcv ops': (probe_operators, f'Run: {reinstall(CORE["mmcv"][1])}'),
    'mmstvit': (probe_mmstvit, 'Try MMSTVIT_BACKEND=torch, and report the fault with the output of this command.'),
    **{name: (functools.partial(probe_library, name), f'Run: {reinstall(LIBRARIES[name][1])}') for name in LIBRARIES},
    'config': (probe_config, ''),
}


def serve_probe(name: str, *arguments: object) -> None:
    """Run a probe and print its results as JSON lines: the other side of :func:`run_probe`."""
    with os.fdopen(os.dup(1), 'w') as channel:
        os.dup2(2, 1)  # libraries print to the standard output, too
        probe, remedy = PROBES[name]
        for result in probe(*arguments) if name == 'config' else [run_check(name, remedy, probe)]:
            print(json.dumps(vars(result)), file=channel, flush=True)


def run_probe(name: str, *arguments: object) -> list[CheckResult]:
    """Run a probe in a process of its own; a crash or a hang there is a result, too."""
    command = [sys.executable, '-m', 'mmstvit.doctor', '--probe', json.dumps([name, *arguments])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return [CheckResult(name, FAILED, f'not finished after {TIMEOUT} s', PROBES[name][1])]
    results = [CheckResult(**json.loads(line)) for line in done.stdout.splitlines()]
    if code := done.returncode:
        end = f'killed by {signal.Signals(-code).name}' if code < 0 else f'exit code {code}'
        detail = f'its process ended with {end}. Last output: {done.stderr.strip().rpartition(chr(10))[2]}'
        results.append(CheckResult(name, FAILED, detail, PROBES[name][1]))
    return results


def diagnose(configs: list[str], cfg_options: list[str]) -> Iterator[CheckResult]:
    """Run all checks: those of the files, the probe of the core, the other probes side by side, then the configs."""
    yield CheckResult('python', OK, f'{platform.python_version()} in {sys.prefix}')
    for function in check_distributions, check_installation, check_shared_memory:
        yield run_check(function.__name__.removeprefix('check_').replace('_', ' '), '', function)
    core = run_probe('core')
    yield from core
    if core[-1].status == FAILED:
        yield CheckResult('everything else', WARNING, 'not checked, because it needs torch, mmengine and mmcv')
        return
    usable = False
    names = [name for name in PROBES if name not in ('core', 'config')]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name, results in zip(names, pool.map(run_probe, names), strict=True):
            usable |= name in LIBRARIES and results[-1].status == OK
            # With a config, its own probe decides which library is needed.
            yield from map(as_warning, results) if configs and name in LIBRARIES else results
        if not usable:
            remedy = "Run: pip install -e '.[onedl]' in a clone of mmstvit (docs/install.md)"
            yield CheckResult('libraries', FAILED, f'none of {", ".join(LIBRARIES)} works; a config needs one', remedy)
            return
        for results in pool.map(lambda file: run_probe('config', file, cfg_options), configs):
            yield from results


def print_environment() -> None:
    """Print what a bug report needs, with the facts that MMEngine collects if it works."""
    code = 'from mmengine.utils.dl_utils import collect_env; [print(k, v, sep=": ") for k, v in collect_env().items()]'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    facts = [f'mmstvit: {__version__} in {PACKAGE}', f'platform: {platform.platform()}']
    facts += [f'${key}: {value}' for key, value in os.environ.items() if re.match('MMSTVIT_|CUDA_|TRITON_|OMP_', key)]
    facts += [] if done.returncode else done.stdout.splitlines()
    print('\nenvironment', *facts, sep='\n  ')


def main(args: list[str] | None = None) -> int:
    """Run the doctor; returns 1 if training could not start, else 0."""
    parser = argparse.ArgumentParser(
        prog='mmstvit doctor',
        description=__doc__.partition('\n')[0],
        epilog='Exit code 1 if training could not start, else 0. A library that is not installed is a warning as long '
        'as another one works.',
    )
    parser.add_argument('config', nargs='*', help='check also what these configs need: library, weights, data')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='override settings of the configs, as in train.py')
    parser.add_argument('--probe', help=argparse.SUPPRESS)
    args = parser.parse_args(args)
    if args.probe is not None:
        serve_probe(*json.loads(args.probe))
        return 0
    for pair in args.cfg_options:
        if '=' not in pair:
            parser.error(f'--cfg-options needs key=value, but got {pair!r}')
    sys.stdout.reconfigure(errors='replace')  # a terminal may not have the arrow
    statuses = []
    for result in diagnose(args.config, args.cfg_options):
        statuses.append(result.status)
        print(result, flush=True)
    print_environment()
    counts = ', '.join(f'{statuses.count(status)} {status}' for status in (OK, WARNING, FAILED))
    print(f'\n{"Training cannot start" if FAILED in statuses else "Training can start"}: {counts}')
    return int(FAILED in statuses)


if __name__ == '__main__':
    sys.exit(main())
