"""STViT checkpoints: the official key layout and ours, the architecture of weights, pretrained backbones."""

from .inspect import Size, adapt_stem, backbone_weights, find_size, recognize_arch
from .layout import (
    check_training_form,
    convert_official,
    convert_to_official,
    is_deploy_form,
    is_official,
    to_mmstvit,
)
from .pretrained import adapt_init_cfg, check_backbone, read_backbone, select_backbone

__all__ = [
    'Size',
    'adapt_init_cfg',
    'adapt_stem',
    'backbone_weights',
    'check_backbone',
    'check_training_form',
    'convert_official',
    'convert_to_official',
    'find_size',
    'is_deploy_form',
    'is_official',
    'read_backbone',
    'recognize_arch',
    'select_backbone',
    'to_mmstvit',
]
