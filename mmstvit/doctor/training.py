"""Checks of what a training needs besides software: data, pretrained weights, workers, disk."""

import argparse
import dataclasses
import functools
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

from . import system
from .findings import FAILED, OK, WARNING, Finding
from .stack import State

_WORKERS = 2
_PARTS = 4  # tensors of 8 MiB
# Visualisation backend -> what it imports; the runner builds them all.
_VIS_PACKAGES = {
    'TensorboardVisBackend': 'tensorboard',
    'WandbVisBackend': 'wandb',
    'MLflowVisBackend': 'mlflow',
    'ClearMLVisBackend': 'clearml',
}


class _Parts:
    """A dataset as big as its shared memory, for workers in processes of their own."""

    def __len__(self) -> int:
        return _PARTS

    def __getitem__(self, index: int) -> object:
        import torch

        return torch.full((8, 1024, 1024), index, dtype=torch.uint8)


def check_workers(state: State) -> Iterator[Finding]:
    """Start workers as a training does, and let them hand something over."""
    from torch.utils.data import DataLoader

    loader = DataLoader(_Parts(), batch_size=None, num_workers=_WORKERS, timeout=60)
    seen = [int(part[0, 0, 0]) for part in loader]
    if seen != list(range(_PARTS)):
        raise RuntimeError(f'the data loader gave {seen}')
    yield Finding('workers', OK, f'{_WORKERS} workers of a data loader handed over {_PARTS} times 8 MiB')


def check_data_sets(state: State) -> Iterator[Finding]:
    """The data sets of our configs, where those look for them; configs that are named say themselves what they need."""
    from mmstvit.engine.runner.checks import DATA_REMEDIES

    if state.configs:
        return
    for folder, remedy in DATA_REMEDIES.items():
        if Path(folder).is_dir():
            yield Finding(folder, OK, str(Path(folder).resolve()))
        else:
            yield Finding(folder, WARNING, f'not in {Path.cwd()}; some configs read it', remedy)


def check_configs(state: State) -> Iterator[Finding]:
    """What each named config needs, and no more."""
    if not state.configs:
        return
    from mmstvit.apis import add_cfg_options

    parser = argparse.ArgumentParser()
    add_cfg_options(parser)
    options = parser.parse_args(['--cfg-options', *state.cfg_options] if state.cfg_options else []).cfg_options
    for file in state.configs:
        try:
            yield from _check_config(file, options)
        except Exception as error:  # a config is code, and may raise whatever it likes
            yield Finding('config', FAILED, f'{file}: {type(error).__name__}: {error}', config=file)


def _check_config(file: str, options: dict | None) -> Iterator[Finding]:
    from mmstvit.apis import UserError, check_data, check_model, check_pretrained, check_weights, read_config
    from mmstvit.checkpoint import CheckpointError, use_safe_loading
    from mmstvit.engine.runner.checks import type_name

    use_safe_loading()  # as the tools do

    def attempt(name: str, action: Callable[..., object], *args: object, good: str) -> tuple[Finding, object]:
        try:
            return Finding(name, OK, good, config=file), action(*args)
        except (UserError, CheckpointError, ImportError) as error:  # what the tools print as one message
            detail, _, remedy = str(error).partition(' Run: ')
            return Finding(name, FAILED, detail, remedy, file), None

    finding, cfg = attempt('config', read_config, file, options, good=file)
    yield finding
    if cfg is None:
        return
    finding, model = attempt('model', functools.partial(check_model, train=True), cfg, good='it can be built')
    yield finding
    checkpoint = None
    if model is not None:
        checkpoint = 3 * 4 * sum(p.numel() for p in model.parameters())  # fp32 weights, and AdamW's two moments
        finding, _ = attempt('pretrained', check_pretrained, cfg, good='all that the training starts from fits')
        if finding.status == OK:
            finding, _ = attempt('pretrained', check_weights, cfg, model, good=finding.detail)
        yield finding
    for split in ('train', 'val', 'test'):
        good = 'every file and folder that the config names is there'
        finding, _ = attempt(f'data, {split}', check_data, cfg, split, good=good)
        if split == 'test' and finding.status == FAILED:  # a training does not need them
            finding = dataclasses.replace(finding, status=WARNING)
        yield finding
    for backend in (cfg.get('visualizer') or {}).get('vis_backends') or []:
        package = _VIS_PACKAGES.get(type_name(backend))
        if package and importlib.util.find_spec(package) is None:
            yield Finding('visualizer', FAILED, f'{backend["type"]} needs {package}', f'pip install {package}', file)
    finding = system.disk('work dir', Path(cfg.get('work_dir') or Path('work_dirs') / Path(file).stem), checkpoint)
    yield dataclasses.replace(finding, config=file)
