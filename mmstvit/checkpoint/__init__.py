"""Checkpoints: the published layout and ours, and reading files without executing them."""

from .errors import CheckpointError
from .layout import convert_official, convert_to_official, is_inference_form, is_official
from .loader import is_local, read_backbone, read_content, read_weights, use_safe_loading
from .reading import check_finite, read_checkpoint
from .recognise import Size, adapt_stem, backbone_weights, find_weights, measure, recognise_arch
from .report import LoadReport, Source, compare, load_weights

__all__ = [
    'CheckpointError',
    'LoadReport',
    'Size',
    'Source',
    'adapt_stem',
    'backbone_weights',
    'check_finite',
    'compare',
    'convert_official',
    'convert_to_official',
    'find_weights',
    'is_inference_form',
    'is_local',
    'is_official',
    'load_weights',
    'measure',
    'read_backbone',
    'read_checkpoint',
    'read_content',
    'read_weights',
    'recognise_arch',
    'use_safe_loading',
]
