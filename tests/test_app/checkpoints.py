"""Checkpoints of untrained nano models with their config, one of each task."""

from pathlib import Path

from torch import nn

from ..helpers import NANO
from ..nano import make_config, save_model


def find_first_class(model: nn.Module) -> None:
    """Let a detector find the first class everywhere."""
    if hasattr(model, 'roi_head'):
        model.roi_head.bbox_head.fc_cls.bias.data[0] = 3


def save_checkpoint(library: str, path: Path, names: list[str] | None = None) -> Path:
    """Write the checkpoint of an untrained model, by default with the classes of the scenes."""
    return save_model(make_config(library, names), path, find_first_class)


def save_checkpoints(folder: Path) -> None:
    """Write a checkpoint for each library: ``<folder>/<library>/epoch_1.pth``."""
    for library in NANO:
        save_checkpoint(library, folder / library / 'epoch_1.pth')
