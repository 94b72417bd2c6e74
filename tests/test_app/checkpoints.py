"""Checkpoints of untrained nano models with their config, one of each task."""

from pathlib import Path

import torch

from mmstvit.apis import build_model

from ..test_tools.test_predict import NAMES, dump, make_config


def save_checkpoint(library: str, path: Path) -> Path:
    """Write the checkpoint of an untrained model; the detector is made to find circles everywhere."""
    torch.manual_seed(0)
    cfg = make_config(library)
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
