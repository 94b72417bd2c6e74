"""Checks of PyTorch, the GPU, the OpenMMLab stack and mmstvit itself: each is imported, and does something.

Nothing is imported above the functions: any of it may be missing or broken.
"""

import contextlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..dependencies import CORE, LIBRARIES, require, require_library
from .findings import FAILED, OK, WARNING, Finding

GIB = 2**30


@dataclass
class State:
    """What the checks of one process share.

    Args:
        configs: Paths of the configs to check.
        cfg_options: What overrides their settings, as on the command line.
        broken: Names of the checks that have failed, or could not be made.
        facts: What is to be added to the report on the environment.
    """

    configs: list[str]
    cfg_options: list[str]
    broken: set[str] = field(default_factory=set)
    facts: dict[str, str] = field(default_factory=dict)


def check_torch(state: State) -> Iterator[Finding]:
    torch = require('torch', *CORE['torch'])
    build = (torch.version.cuda and f'CUDA {torch.version.cuda}') or (torch.version.hip and f'ROCm {torch.version.hip}')
    total = (torch.ones(8, 8) @ torch.ones(8, 8)).sum().item()
    if total != 512:
        yield Finding('torch', FAILED, f'{torch.__version__} multiplies matrices wrongly', CORE['torch'][1])
    else:
        yield Finding('torch', OK, f'{torch.__version__}, built for {build}')


def check_gpu(state: State) -> Iterator[Finding]:
    """The driver, whether torch was built for it and for the GPU, and a kernel on each GPU."""
    import torch

    driver = _driver()
    with warnings.catch_warnings(record=True) as caught:  # torch says here what it has against a driver
        warnings.simplefilter('always')
        available = torch.cuda.is_available()
    if not available:
        yield _without_gpu(driver, ' '.join(str(w.message).split('\n')[0] for w in caught))
        return
    for index in range(torch.cuda.device_count()):
        yield _kernel(torch, index, driver)


def _driver() -> str:
    """GPU and driver version as ``nvidia-smi`` gives them; empty where there is none, or it does not work."""
    if not shutil.which('nvidia-smi'):
        return ''
    command = ['nvidia-smi', '--query-gpu=name,driver_version', '--format=csv,noheader']
    with contextlib.suppress(subprocess.TimeoutExpired, OSError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return '' if done.returncode else done.stdout.strip().partition('\n')[0]
    return ''


def _without_gpu(driver: str, said: str) -> Finding:
    """Why torch uses no GPU; ``driver`` is empty if there is none."""
    import torch

    if not driver:
        return Finding('gpu', OK, 'none: training runs on the CPU')
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES')
    if hidden is not None and hidden.strip() in ('', '-1'):
        return Finding(
            'gpu', WARNING, f'{driver} is hidden by CUDA_VISIBLE_DEVICES={hidden!r}', 'unset CUDA_VISIBLE_DEVICES'
        )
    if torch.version.cuda is None:
        return Finding(
            'gpu',
            WARNING,
            f'{driver} is there, but torch {torch.__version__} was not built for CUDA: training would run on the CPU',
            'pip install --force-reinstall torch torchvision (a build for CUDA), then mmcv anew: '
            + CORE['mmcv'][1].partition(' (')[0],
        )
    return Finding(
        'gpu',
        WARNING,
        f'{driver} is there, but torch, built for CUDA {torch.version.cuda}, cannot use it: training would run on the '
        f'CPU. {said}',
        'update the driver, or install a torch built for an older CUDA; nvidia-smi names the newest the driver knows',
    )


def _kernel(torch: object, index: int, driver: str) -> Finding:
    """One product of matrices on a GPU."""
    name = f'gpu {index}'
    properties = torch.cuda.get_device_properties(index)
    capability, built = (properties.major, properties.minor), torch.cuda.get_arch_list()
    seen = f'{properties.name}, compute capability {capability[0]}.{capability[1]}, {driver or "driver unknown"}'
    try:
        x = torch.ones(64, 64, device=f'cuda:{index}')
        total = (x @ x).sum().item()
        free, memory = torch.cuda.mem_get_info(index)
    except RuntimeError as error:
        reason = str(error).partition('\n')[0]
        if torch.version.hip is None and not is_built_for(capability, built):
            reason += f' (torch {torch.__version__} was built for {", ".join(built)})'
            remedy = (
                'pip install --upgrade torch torchvision (a build for this GPU), or CUDA_VISIBLE_DEVICES="" for CPU'
            )
        else:
            remedy = 'nvidia-smi (is another process holding the GPU?); CUDA_VISIBLE_DEVICES="" trains on the CPU'
        return Finding(name, FAILED, f'{seen}: {reason}', remedy)
    if total != 64**3:
        return Finding(name, FAILED, f'{seen}: it multiplies matrices wrongly ({total})', 'nvidia-smi -q -d ECC')
    return Finding(name, OK, f'{seen}, {free / GIB:.0f} GiB of {memory / GIB:.0f} GiB free')


def is_built_for(capability: tuple[int, int], built: list[str]) -> bool:
    """Whether one of torch's architectures (``sm_90``, ``compute_90``) runs on a GPU of that compute capability.

    Machine code (``sm``) runs on GPUs of its own major version and no smaller minor one; intermediate code
    (``compute``) is compiled by the driver for any later GPU.
    """
    for arch in built:
        kind, number = re.fullmatch(r'(sm|compute)_(\d+)[a-z]?', arch).groups()
        version = divmod(int(number), 10)
        if version <= capability and (kind == 'compute' or version[0] == capability[0]):
            return True
    return False


def check_torchvision(state: State) -> Iterator[Finding]:
    """Built for this torch? Its operators tell."""
    import torch

    remedy = 'pip install torchvision, of the release that belongs to this torch'
    try:
        import torchvision
    except ModuleNotFoundError as error:
        if error.name != 'torchvision':
            raise
        yield Finding('torchvision', WARNING, 'not installed: MMPreTrain and MMDetection need it', remedy)
        return
    kept = torchvision.ops.nms(torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 3]]), torch.tensor([0.9, 0.8]), 0.5)
    if kept.tolist() != [0]:
        raise RuntimeError(f'its nms keeps boxes {kept.tolist()} of two that overlap')
    yield Finding('torchvision', OK, torchvision.__version__)


def check_mmengine(state: State) -> Iterator[Finding]:
    yield Finding('mmengine', OK, require('mmengine', *CORE['mmengine']).__version__)


def check_mmcv(state: State) -> Iterator[Finding]:
    yield Finding('mmcv', OK, require('mmcv', *CORE['mmcv']).__version__)


def check_mmcv_ops(state: State) -> Iterator[Finding]:
    _use_mmcv_ops('cpu')
    yield Finding('mmcv ops', OK, 'nms and RoIAlign work on the CPU')


def check_mmcv_ops_on_gpu(state: State) -> Iterator[Finding]:
    import torch

    if torch.cuda.is_available():
        _use_mmcv_ops('cuda')
        yield Finding('mmcv ops, gpu', OK, 'nms and RoIAlign work on the GPU')


def _use_mmcv_ops(device: str) -> None:
    """Raises whatever the operators raise, and RuntimeError for a wrong result."""
    import torch
    from mmcv.ops import nms, roi_align

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]], device=device)
    _, kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)
    if kept.tolist() != [0, 2]:
        raise RuntimeError(f'nms on {device} keeps boxes {kept.tolist()}; 0 and 2 were right')
    x = torch.full((1, 1, 8, 8), 3.0, device=device, requires_grad=True)
    pooled = roi_align(x, torch.tensor([[0.0, 1, 1, 5, 5]], device=device), 2)
    pooled.sum().backward()
    if not torch.allclose(pooled.detach().cpu(), torch.full((1, 1, 2, 2), 3.0)) or abs(x.grad.sum().item() - 4) > 1e-4:
        raise RuntimeError(f'RoIAlign on {device} is wrong on a constant map: {pooled.flatten().tolist()}')


def check_mmstvit(state: State) -> Iterator[Finding]:
    # So far only the doctor's part of the package was imported.
    package = importlib.reload(sys.modules['mmstvit'])
    yield Finding('mmstvit', OK, f'{package.__version__}, its models are registered')


def check_backend(state: State) -> Iterator[Finding]:
    """Which functions compute, and whether a model goes through them forward and back."""
    import torch

    from mmstvit import STViT
    from mmstvit.ops import describe

    torch.manual_seed(0)
    model, image = STViT('nano'), torch.randn(1, 3, 64, 64)
    expected = None
    for device in ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]:
        output = model.to(device)(image.to(device))[-1]
        output.square().mean().backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        finite = all(g.isfinite().all() for g in gradients) and bool(gradients)
        output = output.detach().cpu()
        expected = output if expected is None else expected
        # Wide enough for products in TF32.
        error = (output - expected).abs().max() / expected.abs().max()
        if not (finite and error < 0.02):
            raise RuntimeError(
                f'STViT on {device} is off by {error:.1e}, gradients finite: {finite}; {describe(device)}'
            )
        if device == 'cuda' and importlib.util.find_spec('triton') is None:
            yield Finding(f'backend, {device}', WARNING, describe(device), 'pip install triton')
        else:
            yield Finding(f'backend, {device}', OK, describe(device))
        model.zero_grad()


def check_libraries(state: State) -> Iterator[Finding]:
    """The three libraries, and whether each finds our models; one of them is enough."""
    usable = 0
    for name, (_, remedy) in LIBRARIES.items():
        try:
            library = require_library(name)
        except ImportError as error:
            detail = str(error).partition(' Run: ')[0]
            missing = isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == name
            # A named config says itself what it needs.
            yield Finding(name, WARNING if missing or state.configs else FAILED, detail, remedy)
            continue
        models = importlib.import_module(f'{name}.registry').MODELS
        model = models.build(dict(type='mmstvit.STViT', arch='nano'))
        usable += 1
        yield Finding(name, OK, f"{library.__version__}, builds 'mmstvit.{type(model).__name__}'")
    if not usable:
        every = ', '.join(LIBRARIES)
        yield Finding(
            'libraries', FAILED, f'none of {every} can be used; a config needs one', "pip install -e '.[onedl]'"
        )


def collect_environment(state: State) -> Iterator[Finding]:
    """What OpenMMLab's ``collect_env`` collects; mmcv's knows more than MMEngine's, if it works."""
    if 'mmcv ops' in state.broken:
        from mmengine.utils.dl_utils import collect_env
    else:
        from mmcv.utils import collect_env
    found = {name: str(value) for name, value in collect_env().items()}
    found.pop('numpy_random_seed', None)
    state.facts.update(found)
    yield from ()
