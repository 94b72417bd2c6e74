"""STViT checkpoints: the official key layout and ours, the architecture of weights, pretrained backbones."""

from .inspect import Size, adapt_stem, backbone_weights, measure, recognise_arch
from .layout import convert_official, convert_to_official, is_inference_form, is_official, to_mmstvit
from .pretrained import check_backbone, for_backbone, read_backbone

__all__ = [
    'Size',
    'adapt_stem',
    'backbone_weights',
    'check_backbone',
    'convert_official',
    'convert_to_official',
    'for_backbone',
    'is_inference_form',
    'is_official',
    'measure',
    'read_backbone',
    'recognise_arch',
    'to_mmstvit',
]
