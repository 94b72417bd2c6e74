"""Nano models of the three libraries for small images, and their checkpoints as MMEngine stores them."""

import copy
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from torch import nn

from mmstvit.apis import build_model

from .helpers import NANO, load_config


@functools.cache
def _small_config(library: str) -> Config:
    cfg = load_config(NANO[library])
    pipeline = cfg.test_dataloader.dataset.pipeline
    pipeline[:] = [pipeline[0], dict(type='Resize', scale=(64, 64), keep_ratio=True), *pipeline[-2:]]
    if library == 'mmpretrain':
        pipeline.pop(2)
    return cfg


def make_config(library: str, classes: list[str] | None = None) -> Config:
    """Return the config of a nano model for small images, with the classes of the scenes by default."""
    cfg = copy.deepcopy(_small_config(library))
    if classes:
        dataset = cfg.test_dataloader.dataset
        dataset.update(classes=classes) if library == 'mmpretrain' else dataset.metainfo.update(classes=classes)
    return cfg


def dump(cfg: Config) -> str:
    """Return the text of a config."""
    cfg = copy.deepcopy(cfg)
    cfg._format_python_code = False  # slow, and changes the layout only
    return cfg.dump()


def save_model(cfg: Config, path: Path, change: Callable[[nn.Module], object] = lambda model: None) -> Path:
    """Write the checkpoint of an untrained model with its config; ``change`` may change the weights."""
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    change(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=dump(cfg))), path)
    return path
