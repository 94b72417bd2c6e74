"""What decays and what does not, parameter by parameter, in every config of the paper."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmstvit.apis import build_model
from mmstvit.checkpoint import convert_official

from ..helpers import ROOT, load_config, official_shapes

FAMILIES = ('imagenet', 'mask_rcnn', 'cascade_mask_rcnn', 'upernet')
CONFIGS = {p.stem: p for family in FAMILIES for p in (ROOT / 'configs' / family).glob('*.py') if '-nano' not in p.name}
IMAGENET = [name for name, path in CONFIGS.items() if path.parent.name == 'imagenet']
DOWNSTREAM = sorted(set(CONFIGS) - set(IMAGENET))


def build(name: str) -> tuple[Config, nn.Module, dict[str, float]]:
    """A config, its model without memory, and the weight decay of every parameter in its optimiser."""
    cfg = load_config(f'{CONFIGS[name].parent.name}/{name}')
    with torch.device('meta'):
        model = build_model(cfg)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert {group['lr'] for group in groups} == {cfg.optim_wrapper.optimizer.lr}
    by_id = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    assert len(by_id) == sum(len(group['params']) for group in groups)  # each once
    decays = {name: by_id.pop(id(p)) for name, p in model.named_parameters()}
    assert not by_id
    return cfg, model, decays


def released_decay(size: str, weight_decay: float) -> dict[str, float]:
    """By timm's rule on the release's own names and shapes: neither vectors nor biases decay."""
    decays = {}
    for key, shape in official_shapes(size).items():
        for name in convert_official({key: torch.empty(shape, device='meta')}):
            decays[name] = 0.0 if len(shape) == 1 or key.endswith('.bias') else weight_decay
    return decays


@pytest.mark.parametrize('name', sorted(IMAGENET))
def test_classification_decays_what_the_release_decays(name):
    cfg, model, decays = build(name)
    expected = released_decay(cfg.model.backbone.arch, cfg.optim_wrapper.optimizer.weight_decay)
    assert decays == {name: expected[name] for name, _ in model.named_parameters()}
    # The release keeps layer scales as (C, 1, 1) maps, which are no vectors.
    gammas = {decay for name, decay in decays.items() if '.gamma' in name}
    assert gammas == (set() if 'small' in name else {cfg.optim_wrapper.optimizer.weight_decay})


@pytest.mark.parametrize('name', DOWNSTREAM)
def test_detection_and_segmentation_decay_all_but_norms_and_layer_scales(name):
    cfg, model, decays = build(name)
    norms = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
    free = {
        f'{prefix}.{n}' for prefix, m in model.named_modules() if isinstance(m, norms) for n, _ in m.named_parameters()
    }
    free |= {name for name in decays if name.endswith(('.gamma1', '.gamma2'))}
    assert decays == {name: 0.0 if name in free else cfg.optim_wrapper.optimizer.weight_decay for name in decays}


def test_the_groups_of_base_in_numbers():
    _, _, decays = build('mask-rcnn_stvit-base_fpn_1x_coco')
    free = [name for name, decay in decays.items() if decay == 0]
    assert len(free) == 2 * (2 * 30 + 4 + 3) + 2 * 20  # two norms a block, stem, downsamplings; gammas of 20 blocks
    assert decays['backbone.stages.0.0.ffn.fc1.bias'] == decays['rpn_head.rpn_conv.bias'] == 0.05


def test_every_family_is_covered():
    assert {path.parent.name for path in CONFIGS.values()} == set(FAMILIES)
    assert len(CONFIGS) >= 18
