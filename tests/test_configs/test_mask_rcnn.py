"""The Mask R-CNN configs: what they build, what they optimise, and that they train on COCO-format data."""

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmstvit.models.arch import ARCHS

from ..helpers import ROOT

FAMILY = ROOT / 'configs' / 'mask_rcnn'
SIZES = ('small', 'base', 'large')
COCO = [f'mask-rcnn_stvit-{size}_fpn_{schedule}_coco' for size in SIZES for schedule in ('1x', 'ms-3x')]
DROP_PATH = {'small': 0.1, 'base': 0.3, 'large': 0.5}


def load(name: str) -> Config:
    return Config.fromfile(FAMILY / f'{name}.py')


def build(cfg: Config) -> nn.Module:
    with DefaultScope.overwrite_default_scope('mmdet'):
        cfg.model.backbone.init_cfg = None
        return MODELS.build(cfg.model)


def test_the_family_is_complete():
    assert {p.stem for p in FAMILY.glob('*.py')} == {*COCO, 'mask-rcnn_stvit-nano_fpn_scenes'}


@pytest.mark.parametrize('name', COCO)
def test_states_the_papers_recipe(name):
    cfg, size = load(name), name.split('_')[1].removeprefix('stvit-')
    assert cfg.model.backbone.type == 'mmstvit.STViT'
    assert cfg.model.backbone.arch == size
    assert cfg.model.backbone.drop_path_rate == DROP_PATH[size]
    assert tuple(cfg.model.neck.in_channels) == ARCHS[size].channels
    assert cfg.model.backbone.init_cfg.checkpoint == f'checkpoints/stvit-{size}-224_mm.pth'
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05)
    assert cfg.auto_scale_lr.base_batch_size == 16
    epochs, milestones = (12, [8, 11]) if '_1x_' in name else (36, [27, 33])
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.param_scheduler[-1].milestones == milestones
    assert cfg.param_scheduler[-1].end == epochs


@pytest.mark.parametrize('size', SIZES)
def test_multi_scale_draws_the_short_side_from_480_to_800(size):
    pipeline = load(f'mask-rcnn_stvit-{size}_fpn_ms-3x_coco').train_dataloader.dataset.pipeline
    (resize,) = [step for step in pipeline if 'Resize' in step.type]
    assert resize.type == 'RandomChoiceResize' and resize.keep_ratio
    assert [tuple(scale) for scale in resize.scales] == [(side, 1333) for side in range(480, 801, 32)]


@pytest.mark.parametrize(('size', 'millions'), [('small', 44.11), ('base', 70.35), ('large', 113.55)])
def test_has_the_papers_number_of_parameters(size, millions):
    model = build(load(f'mask-rcnn_stvit-{size}_fpn_1x_coco'))
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions
