"""Checkpoints of untrained nano models with their config, one of each task."""

import copy
from pathlib import Path

import torch

from mmstvit.apis import build_model

from ..test_tools.test_predict import NAMES, dump, make_config


def save_checkpoint(library: str, path: Path, names: list[str] | None = None) -> Path:
    """Write the checkpoint of an untrained model; the detector is made to find the first class everywhere.

    Args:
        library: The library.
        path: The file.
        names: Names of the classes, if they are not those of the scenes.
    """
    torch.manual_seed(0)
    cfg = copy.deepcopy(make_config(library))
    if names:
        dataset = cfg.test_dataloader.dataset
        dataset.update(classes=names) if library == 'mmpretrain' else dataset.metainfo.update(classes=names)
    model = build_model(cfg)
    model.init_weights()
    if library == 'mmdet':
        model.roi_head.bbox_head.fc_cls.bias.data[0] = 3
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(cfg=dump(cfg))), path)
    return path


def save_checkpoints(folder: Path) -> dict[str, Path]:
    """Write a checkpoint for each library: ``<folder>/<library>/epoch_1.pth``."""
    return {library: save_checkpoint(library, folder / library / 'epoch_1.pth') for library in NAMES}
