"""Tiny models of the three libraries, with weights as after training."""

import torch
from torch import nn

from mmstvit.apis import build_model

from ..helpers import TINY, learned, load_config

NAMES = {
    'classifier': 'imagenet/stvit-nano_scenes',
    'segmentor': 'upernet/stvit-nano_upernet_scenes',
    'mask': 'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes',
    'cascade': 'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes',
    'faster': 'faster_rcnn/faster-rcnn_stvit-nano_fpn_scenes',
}
CHANNELS = list(TINY['channels'])


def make(kind: str, **options: object) -> nn.Module:
    """Build the model of a nano config with a tiny backbone; ``options`` override the config."""
    cfg = load_config(NAMES[kind])
    cfg.model.backbone.arch = TINY
    if kind == 'classifier':
        cfg.model.neck.in_channels = CHANNELS[-1]
    elif kind == 'segmentor':
        cfg.model.decode_head.in_channels = CHANNELS
        cfg.model.auxiliary_head = None
    else:
        cfg.model.neck.in_channels = CHANNELS
    cfg.merge_from_dict(options)
    torch.manual_seed(0)
    model = learned(build_model(cfg))
    for name, weight in model.named_parameters():
        if 'fc_cls' in name or 'rpn_cls' in name:  # scores that differ: NMS must not decide by rounding errors
            weight.data.normal_(std=0.3)
    return model
