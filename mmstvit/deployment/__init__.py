"""Export models to ONNX, OpenVINO and torch.export, check the files, and predict with them."""

from .export import Report, Sizes, check_suffix, export
from .formats import FORMATS, ExportedFile, is_exported, load_exported
from .metadata import Metadata, Preprocessing
from .results import paste_masks
from .runtime import ExportedModel

__all__ = [
    'FORMATS',
    'ExportedFile',
    'ExportedModel',
    'Metadata',
    'Preprocessing',
    'Report',
    'Sizes',
    'check_suffix',
    'export',
    'is_exported',
    'load_exported',
    'paste_masks',
]
