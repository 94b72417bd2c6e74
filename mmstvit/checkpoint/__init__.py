"""Checkpoints: the published layout and ours, and reading files without executing them."""

from .errors import CheckpointError
from .layout import convert_official, convert_to_official, is_inference_form, is_official
from .reading import check_finite, read_checkpoint
from .recognise import Size, adapt_stem, backbone_weights, find_weights, measure, recognise_arch

__all__ = [
    'CheckpointError',
    'Size',
    'adapt_stem',
    'backbone_weights',
    'check_finite',
    'convert_official',
    'convert_to_official',
    'find_weights',
    'is_inference_form',
    'is_official',
    'measure',
    'read_checkpoint',
    'recognise_arch',
]
