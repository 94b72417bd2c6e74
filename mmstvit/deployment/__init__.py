"""Export models to ONNX, OpenVINO and torch.export, check the files, and predict with them."""

from .export import ExportReport, check_suffix, export
from .formats import FORMATS, ExportedFile, is_exported, load_exported
from .metadata import Metadata, Preprocessing
from .runtime import ExportedModel
from .standalone import paste_masks

__all__ = [
    'FORMATS',
    'ExportReport',
    'ExportedFile',
    'ExportedModel',
    'Metadata',
    'Preprocessing',
    'check_suffix',
    'export',
    'is_exported',
    'load_exported',
    'paste_masks',
]
