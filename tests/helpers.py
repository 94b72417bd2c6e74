"""Helpers that several test files share."""

import contextlib
import copy
import functools
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmstvit import STViT
from mmstvit.apis import build_model
from mmstvit.arch import ARCHS
from mmstvit.ops import naive, super_token, use_backend

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / 'tests' / 'data'
# The config of each library for the bundled scenes, by its path below ``configs``.
NANO = {
    'mmdet': 'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes',
    'mmseg': 'upernet/stvit-nano_upernet_scenes',
    'mmpretrain': 'imagenet/stvit-nano_scenes',
}
TINY_CLASSIFIER = ROOT / 'tests' / 'test_training' / 'tiny_classifier.py'
OPS = {'fast': super_token, 'naive': naive}

# Small, yet with everything in it: padded cells, several super tokens, layer scale, more heads than one.
TINY = {
    'channels': (8, 12, 16, 24),
    'depths': (1, 1, 2, 1),
    'num_heads': (1, 2, 4, 3),
    'stoken_size': (4, 2, 1, 1),
    'layer_scale_init_value': (0.0, 0.5, 0.5, 0.0),
}


class Harm:
    """An object that calls a function when it is unpickled."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


def official_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Return keys and shapes of a published checkpoint."""
    shapes = json.loads((DATA / 'official_state_dict_shapes.json').read_text())[size]
    return {key: tuple(shape) for key, shape in shapes.items()}


def published_weights(size: str) -> dict[str, Tensor]:
    """Return a state dict with the keys and shapes of a published checkpoint, on the meta device."""
    return {key: torch.empty(shape, device='meta') for key, shape in official_shapes(size).items()}


def tiny(seed: int = 0, **kwargs: object) -> STViT:
    """Build a TINY model whose weights depend on the seed alone, with BatchNorm statistics other than 0 and 1."""
    torch.manual_seed(seed)
    model = STViT(TINY, **kwargs)
    for norm in batch_norms(model).values():
        norm.running_mean.normal_(std=0.1)
        norm.running_var.uniform_(0.5, 1.5)
    return model


def image(*size: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return random numbers of the given size, the same for the same seed."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def batch_norms(module: nn.Module) -> dict[str, _BatchNorm]:
    return {name: m for name, m in module.named_modules() if isinstance(m, _BatchNorm)}


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: p.grad for name, p in module.named_parameters()}


def not_learning(module: nn.Module) -> list[str]:
    """Return the names of parameters without a gradient, or with one that is zero, NaN or Inf."""
    return [
        name for name, grad in gradients(module).items() if grad is None or not grad.isfinite().all() or not grad.any()
    ]


@contextlib.contextmanager
def group_of_one() -> Iterator[None]:
    """Join a process group of this process alone."""
    torch.distributed.init_process_group('gloo', store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def cotangent_loss(outputs: tuple[Tensor, ...]) -> Tensor:
    """Return a scalar to which every output entry contributes with another weight."""
    return sum((x * image(*x.shape, seed=i, dtype=x.dtype)).sum() for i, x in enumerate(outputs))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return the largest absolute difference over the largest absolute expected value; inf for NaN."""
    assert actual.shape == expected.shape, f'shape {tuple(actual.shape)}, expected {tuple(expected.shape)}'
    difference = (actual - expected).abs().max().item()
    if difference == 0:
        return 0.0
    error = difference / max(expected.abs().max().item(), 1e-300)
    return error if error == error else float('inf')


def assert_near(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """Assert that both sides have the same names, and every tensor a relative error within ``tolerance``."""
    assert set(actual) == set(expected)
    errors = {name: relative_error(actual[name], expected[name]) for name in expected}
    assert errors
    wrong = {name: error for name, error in errors.items() if not error <= tolerance}
    assert not wrong, f'relative errors above {tolerance}: {wrong}'


def assert_equal(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Assert that both sides have the same names and equal tensors, bit for bit."""
    assert set(actual) == set(expected)
    assert expected
    assert not [name for name in expected if not torch.equal(actual[name], expected[name])]


@contextlib.contextmanager
def use_ops(ops: ModuleType) -> Iterator[None]:
    """Run super token attention with other functions behind it."""
    with use_backend('naive' if ops is naive else 'torch'):
        yield


@contextlib.contextmanager
def count_saved_numbers() -> Iterator[Callable[[], int]]:
    """Count the numbers that operators keep for the backward pass, each memory once."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(kept.values())


def run_python(code: str, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter, with ``path`` in front of the installed packages."""
    env = {**os.environ, 'PYTHONWARNINGS': 'ignore'}
    env.pop('PYTHONPATH', None)
    if path is not None:
        env['PYTHONPATH'] = str(path)
    return subprocess.run([sys.executable, '-c', code], cwd=cwd, env=env, capture_output=True, text=True, timeout=120)


def config_path(name: str) -> Path:
    """A config by its path below ``configs``, without the suffix."""
    return ROOT / 'configs' / f'{name}.py'


def load_config(name: str) -> Config:
    """Read a config by its path below ``configs``, without the suffix."""
    return copy.deepcopy(_read_config(name))


@functools.cache
def _read_config(name: str) -> Config:
    """Read a config once: for every base of another package MMEngine reads the whole index of that package."""
    return Config.fromfile(config_path(name))


def save_untrained(name: str, checkpoint: Path) -> nn.Module:
    """Write a checkpoint of a config's freshly initialized model; return the model in evaluation mode."""
    torch.manual_seed(0)
    model = build_model(load_config(name))
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return model.eval()


def metrics(output: str) -> dict[str, float]:
    """Read the table that test.py ends with."""
    return {name: float(value) for name, value in re.findall(r'^(\S+) +(-?\d+\.\d{4})$', output, re.MULTILINE)}


def scalars(work_dir: Path) -> list[dict]:
    """Read all that was logged in a work dir, the newest run last."""
    files = sorted(work_dir.glob('*/vis_data/scalars.json'))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def load_tool(path: str) -> ModuleType:
    """Import a script of ``tools/`` as a module."""
    name = f'tool_{Path(path).stem}'
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def link_scenes(folder: Path, scenes: Path) -> Path:
    """Put the scenes where the configs look for them, for a tool that runs in ``folder``."""
    (folder / 'data').mkdir()
    (folder / 'data' / 'scenes').symlink_to(scenes)
    return folder


def free_port() -> dict[str, str]:
    """Return the environment variable PORT for ``tools/dist_*.sh``, set to a free port."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return {'PORT': str(probe.getsockname()[1])}


@functools.cache
def meta_classifier(arch: str) -> nn.Module:
    """Build MMPreTrain's classifier with an STViT on the meta device: shapes without numbers."""
    registry = pytest.importorskip('mmpretrain.registry')
    config = {
        'type': 'ImageClassifier',
        'backbone': {'type': 'mmstvit.STViT', 'arch': arch, 'out_indices': (3,)},
        'neck': {'type': 'mmstvit.STViTNeck', 'in_channels': ARCHS[arch].channels[-1]},
        'head': {'type': 'LinearClsHead', 'num_classes': 1000, 'in_channels': 1024},
    }
    with torch.device('meta'):
        return registry.MODELS.build(config)


@torch.no_grad()
def learned(model: nn.Module) -> nn.Module:
    """Return the model in evaluation mode, with random norms and layer scales, as after training."""
    random = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            module.weight.uniform_(0.5, 1.5, generator=random)
            module.bias.normal_(std=0.3, generator=random)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3, generator=random)
            module.running_var.uniform_(0.3, 2, generator=random)
    for name, parameter in model.named_parameters():
        if 'gamma' in name:
            parameter.uniform_(-1, 1, generator=random)
    return model.eval()


def unwanted_super_token(c: int = 16) -> Tensor:
    """Return a map for cells of 4×4, (1, 12, 12, C), some of whose super tokens have nearly no weight.

    The tokens of the middle cells cancel: their super tokens are near 0, and those above and below attract them.
    """
    direction = image(c)
    x = image(1, 12, 12, c, seed=1) * 0.1
    sign = torch.tensor([1.0] * 4 + [1.0, -1.0] * 2 + [-1.0] * 4)
    return x + 5 * direction / direction.norm() * sign[:, None, None] * c**0.25
