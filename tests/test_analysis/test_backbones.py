"""Backbones by name."""

import functools

import pytest
import torch

from mmstvit import STViT
from mmstvit.analysis import PublishedSTViT
from mmstvit.analysis.backbones import NAMES, build_backbone, parse_entry
from mmstvit.apis import UserError

from ..helpers import ROOT, assert_equal

NANO_DETECTOR = ROOT / 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'
# Millions, of the whole backbones that detectors use: the papers' numbers without the classifier.
PARAMETERS = {
    'swin-tiny': 27.5,
    'swin-small': 48.8,
    'swin-base': 86.7,
    'convnext-tiny': 27.8,
    'convnext-small': 49.5,
    'convnext-base': 87.6,
    'pvtv2-b2': 24.8,
}


@functools.cache
def built(text: str) -> torch.nn.Module:
    return build_backbone(parse_entry(text))


@pytest.mark.parametrize('name', [name for name in NAMES if not name.endswith(('-base', '-large'))])
def test_every_name_is_a_backbone_of_a_detector(name):
    backbone = built(name)
    backbone.eval()
    with torch.no_grad():
        maps = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(x.shape[2:]) for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize('name', PARAMETERS)
def test_rivals_are_as_large_as_their_papers_say(name):
    assert round(sum(p.numel() for p in built(name).parameters()) / 1e6, 1) == PARAMETERS[name]


def test_weights_are_the_same_every_time_and_for_the_published_algorithm():
    ours, again, published = (build_backbone(parse_entry(f'{name}-nano')) for name in ('stvit', 'stvit', 'naive'))
    assert isinstance(published, PublishedSTViT)
    assert_equal(ours.state_dict(), again.state_dict())
    assert_equal(ours.state_dict(), published.model.state_dict())


def test_nothing_is_dropped_at_random():
    for name in ('stvit-nano', 'swin-tiny', 'convnext-tiny', 'pvtv2-b2'):
        rates = [getattr(module, 'drop_prob', 0.0) for module in built(name).modules()]
        assert not any(rates), name


def test_options_set_arguments():
    entry = parse_entry('stvit-nano+with_cp=True+arch.stoken_size=8,4,2,1+norm_eval=False+compile+deploy+bf16')
    assert entry.compile and entry.deploy and entry.dtype == 'bf16'
    model = build_backbone(entry)
    assert isinstance(model, STViT) and model.with_cp
    assert model.arch.stoken_size == (8, 4, 2, 1)
    plain = parse_entry('stvit-nano')
    assert not plain.compile and not plain.deploy and plain.dtype is None
    assert build_backbone(plain).arch.stoken_size == (8, 4, 1, 1)
    swin = build_backbone(parse_entry('swin-tiny+depths=1,1,1,1+norm_cfg={"type":"BN"}'))
    assert [len(stage.blocks) for stage in swin.stages] == [1, 1, 1, 1]
    assert isinstance(swin.norm0, torch.nn.BatchNorm2d)


def test_backbones_of_configs():
    ours = build_backbone(parse_entry(f'{NANO_DETECTOR}+drop_path_rate=0.25'))
    assert isinstance(ours, STViT)
    assert ours.stages[3][0].drop_path.drop_prob == 0.25
    theirs = build_backbone(parse_entry('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py'))
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in built('swin-tiny').parameters())


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('stvit-smal', "unknown backbone 'stvit-smal'. Did you mean 'stvit-small'"),
        ('stvit-small+fast', "option is compile, deploy, fp32, bf16, fp16 or key=value, but got 'fast'"),
        ('stvit-small+bf16+fp16', 'there can be one of fp32, bf16, fp16, but got bf16, fp16'),
        ('stvit-small+=3', "but got '=3'"),
        ('nowhere/config.py', 'nowhere/config.py does not exist'),
        ('stvit-nano+arch.channel=8,8,8,8', 'cannot be built: .*channel'),
        ('stvit-nano+drop_rate=2', 'drop_rate must be a number in'),
        ('stvit-nano+init_cfg.type.name=3', 'reaches into init_cfg, which is no dict'),
        ('stvit-nano+fast=True', "cannot be built: .*unexpected keyword argument 'fast'"),
        ('naive-nano+with_cp=True', 'the published algorithm here has no with_cp'),
        ('mmdet::swin/none.py', 'no such config'),
        ('mmcls::swin/none.py', "no such config: 'mmcls' is not a library"),
    ],
)
def test_what_cannot_be_built_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        build_backbone(parse_entry(text))


def test_a_config_without_backbone_is_refused(tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("default_scope = 'mmdet'\nmodel = dict(type='RTMDet')\n")
    with pytest.raises(UserError, match=r'config.py: the config has no model\.backbone'):
        build_backbone(parse_entry(str(config)))
