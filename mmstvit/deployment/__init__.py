"""Export models to ONNX and OpenVINO, check the files, and predict with them."""

from .export import ExportReport, check_suffix, export
from .formats import FORMATS, ExportedFile, is_exported
from .metadata import Metadata
from .runtime import ExportedModel
from .standalone import paste_masks

__all__ = [
    'FORMATS',
    'ExportReport',
    'ExportedFile',
    'ExportedModel',
    'Metadata',
    'check_suffix',
    'export',
    'is_exported',
    'paste_masks',
]
