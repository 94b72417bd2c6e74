"""Weight decay of every parameter in the configs of the paper."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmstvit.apis import build_model
from mmstvit.checkpoint import convert_official

from ..helpers import load_config, official_shapes


def build(name: str, **backbone: object) -> tuple[Config, nn.Module, dict[str, tuple[float, float]]]:
    """A config, its model without memory, and (learning rate, weight decay) of every parameter in its optimizer."""
    cfg = load_config(name)
    cfg.model.backbone.update(backbone)
    with torch.device('meta'):
        model = build_model(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    by_id = {id(p): (group['lr'], group['weight_decay']) for group in groups for p in group['params']}
    assert len(by_id) == sum(len(group['params']) for group in groups)  # each once
    options = {name: by_id.pop(id(p)) for name, p in model.named_parameters()}
    assert not by_id
    return cfg, model, options


def build_at_one_rate(name: str) -> tuple[Config, nn.Module, dict[str, float]]:
    """A config, its model, and the weight decay of every parameter; all learn at the same rate."""
    cfg, model, options = build(name)
    assert {rate for rate, _ in options.values()} == {cfg.optim_wrapper.optimizer.lr}
    return cfg, model, {name: decay for name, (_, decay) in options.items()}


def norms_and_layer_scales(model: nn.Module) -> set[str]:
    norms = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
    free = {
        f'{prefix}.{n}' for prefix, m in model.named_modules() if isinstance(m, norms) for n, _ in m.named_parameters()
    }
    return free | {name for name, _ in model.named_parameters() if name.endswith(('.gamma1', '.gamma2'))}


def official_decay(size: str, weight_decay: float) -> dict[str, float]:
    """timm's rule on the names and shapes of the official implementation: vectors and biases do not decay."""
    decays = {}
    for key, shape in official_shapes(size).items():
        for name in convert_official({key: torch.empty(shape, device='meta')}):
            decays[name] = 0.0 if len(shape) == 1 or key.endswith('.bias') else weight_decay
    return decays


@pytest.mark.parametrize('name', ['small_8xb128_in1k', 'large_8xb128_in1k', 'base_8xb64_in1k-384px'])
def test_classification_decays_as_the_official_implementation(name):
    cfg, model, decays = build_at_one_rate(f'imagenet/stvit-{name}')
    expected = official_decay(cfg.model.backbone.arch, cfg.optim_wrapper.optimizer.weight_decay)
    assert decays == {name: expected[name] for name, _ in model.named_parameters()}
    # Layer scales are (C, 1, 1) maps in the official implementation, not vectors.
    gammas = {decay for name, decay in decays.items() if '.gamma' in name}
    assert gammas == (set() if 'small' in name else {cfg.optim_wrapper.optimizer.weight_decay})


@pytest.mark.parametrize(
    'name',
    [
        'mask_rcnn/mask-rcnn_stvit-base_fpn_1x_coco',
        'cascade_mask_rcnn/cascade-mask-rcnn_stvit-base_fpn_4conv1fc-giou_ms-3x_coco',
        'upernet/stvit-base_upernet_8xb2-160k_ade20k-512x512',
    ],
)
def test_detection_and_segmentation_decay_all_but_norms_and_layer_scales(name):
    cfg, model, decays = build_at_one_rate(name)
    free = norms_and_layer_scales(model)
    assert decays == {name: 0.0 if name in free else cfg.optim_wrapper.optimizer.weight_decay for name in decays}


# Embeddings in the head of Mask2Former, which do not decay.
EMBEDDINGS = ('query_embed.', 'query_feat.', 'level_embed.')


@pytest.mark.parametrize(
    ('name', 'head'),
    [
        ('mask2former/mask2former_stvit-small_8xb2-lsj-50e_coco', 'panoptic_head.'),
        ('mask2former/mask2former_stvit-small_8xb2-160k_ade20k-512x512', 'decode_head.'),
        ('dino/dino-4scale_stvit-small_8xb2-12e_coco', ''),
    ],
)
def test_backbones_of_transformers_learn_slowly(name, head):
    """With STViT-B, because it has layer scales. Outside of the backbone, DINO decays the norms, too."""
    cfg, model, options = build(name, arch='base')
    optimizer, free = cfg.optim_wrapper.optimizer, norms_and_layer_scales(model)
    assert sum('gamma' in name for name in free) > 30
    if not head:
        free = {name for name in free if name.startswith('backbone.')}
    else:
        free |= {name for name in options if name.startswith(tuple(head + part for part in EMBEDDINGS))}
    for name, found in options.items():
        rate = optimizer.lr * (0.1 if name.startswith('backbone.') else 1)
        assert found == (pytest.approx(rate), 0.0 if name in free else optimizer.weight_decay), name
