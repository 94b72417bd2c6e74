"""``docs/any_head.md``: STViT under every head of its tables, by the recipe that the row links.

The recipes are the blocks of the page, with the stock config of the row in ``_base_``. Only what costs time is smaller
than in the stock configs: images, sampled regions, queries, predictions and layers of transformers.
"""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import nn

from mmstvit import STViT
from mmstvit.apis import UserError, build_model, read_config

from ..helpers import ROOT, not_learning
from ..in_process import restored

PAGE = (ROOT / 'docs' / 'any_head.md').read_text()
SIDE = 64
RED = [0, 0, 255]  # as OpenCV reads it
NORMALIZED_RED = [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
META = dict(img_id=1, img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE), pad_shape=(SIDE, SIDE), scale_factor=(1.0, 1.0))


def sections() -> dict[str, str]:
    """Return the text of every section by its anchor."""
    found = re.findall(r'^#{2,3} (.*)\n((?:(?!#{2,3} ).*\n)*)', PAGE, re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-'): text for title, text in found}


def rows(table: str) -> list[tuple[str, str]]:
    """Return the stock config and the anchor of the recipe in every row of a section's table."""
    return re.findall(r'^\| .* \| `(.+)` \| \[.*\]\(#(.+)\) \|$', sections()[table], re.MULTILINE)


def blocks(section: str) -> list[str]:
    return re.findall(r'```python\n(_base_ = .*?)```', sections()[section], re.DOTALL)


def recipe(section: str, stock: str) -> str:
    """Return the config of a section with a stock config as its base."""
    (block,) = blocks(section)
    library, name = stock.split('::')
    assert library in block.partition('\n')[0]
    return re.sub(r"(::|/configs/)[\w/.-]+'", rf"\1{name}'", block, count=1)


# What is smaller than in the stock configs.
MOST = dict(num=16, num_queries=30, num_proposals=10, max_per_img=10, num_layers=3, num_blocks=3)


def shrink(node: object) -> None:
    """Make the config of a model cheaper, and leave out what resizes a batch to the recipe's size."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        shrink(child)
    if isinstance(node, dict):
        node.pop('batch_augments', None)
        node.update({key: most for key, most in MOST.items() if isinstance(node.get(key), int) and node[key] > most})
        if 'seg_pad_val' in node and 'size' in node:
            node['size'] = (SIDE, SIDE)


def detection_sample(cfg: Config) -> object:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    boxes = [(4, 4, 40, 36), (24, 8, 60, 60), (10, 30, 22, 44)]
    masks = np.zeros((len(boxes), SIDE, SIDE), np.uint8)
    segments = torch.full((1, SIDE, SIDE), 100)
    for label, (left, top, right, bottom) in enumerate(boxes):
        masks[label, top:bottom, left:right] = 1
        segments[:, top:bottom, left:right] = label
    sample = DetDataSample(metainfo=META)
    labels = torch.zeros(len(boxes), dtype=torch.long)
    sample.gt_instances = InstanceData(bboxes=torch.tensor(boxes, dtype=torch.float32), labels=labels)
    pipeline = str(cfg.train_pipeline)
    if "'with_mask': True" in pipeline or 'LoadPanopticAnnotations' in pipeline:
        sample.gt_instances.masks = BitmapMasks(masks, SIDE, SIDE)
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    stride = 8 if 'SegRescale' in pipeline else 1
    sample.gt_sem_seg = PixelData(sem_seg=segments[:, ::stride, ::stride])
    return sample


def segmentation_sample(_cfg: Config) -> object:
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=META)
    sample.gt_sem_seg = PixelData(data=torch.arange(SIDE).div(16, rounding_mode='floor').repeat(1, SIDE, 1))
    return sample


def classification_sample(cfg: Config) -> object:
    from mmpretrain.structures import DataSample

    sample = DataSample(metainfo=META)
    return sample.set_gt_score(torch.eye(20)[3]) if 'CSRA' in cfg.model.head.type else sample.set_gt_label(3)


SAMPLES = dict(mmdet=detection_sample, mmseg=segmentation_sample, mmpretrain=classification_sample)


def check_detections(sample: object) -> None:
    if 'pred_panoptic_seg' in sample:
        assert sample.pred_panoptic_seg.sem_seg.shape == (1, SIDE, SIDE)
        return
    found = sample.pred_instances
    assert found.bboxes.shape == (len(found), 4)
    assert found.scores.isfinite().all()
    assert found.labels.shape == found.scores.shape
    assert 'masks' not in found or found.masks.shape == (len(found), SIDE, SIDE)


def check_segments(sample: object) -> None:
    assert sample.pred_sem_seg.data.shape == (1, SIDE, SIDE)
    assert sample.seg_logits.data.isfinite().all()


def check_scores(sample: object) -> None:
    assert sample.pred_score.isfinite().all()
    assert sample.pred_score.numel() > 4


CHECKS = dict(mmdet=check_detections, mmseg=check_segments, mmpretrain=check_scores)


def read(text: str, folder: Path) -> Config:
    """Read a config as the tools do, and make it cheaper."""
    (folder / 'mine.py').write_text(text)
    cfg = read_config('mine.py', None)
    shrink(cfg.model)
    return cfg


def build(cfg: Config) -> nn.Module:
    """Build and initialize a model without files of weights."""
    model = build_model(cfg)
    for module in model.modules():
        if 'Pretrained' in str(getattr(module, 'init_cfg', None)):
            module.init_cfg = None
    torch.manual_seed(0)
    model.init_weights()
    return model


def batch(cfg: Config, model: nn.Module, count: int, training: bool) -> dict:
    """Return what the data preprocessor makes of random images, the first with a red pixel."""
    torch.manual_seed(0)
    images = torch.randint(256, (count, 3, SIDE, SIDE), dtype=torch.uint8)
    images[0, :, 0, 0] = torch.tensor(RED)
    data = dict(inputs=list(images), data_samples=[SAMPLES[cfg.default_scope](cfg) for _ in images])
    return model.data_preprocessor(data, training)


def check_training(cfg: Config, model: nn.Module) -> None:
    data = batch(cfg, model, 2, True)
    torch.testing.assert_close(data['inputs'][0, :, 0, 0], torch.tensor(NORMALIZED_RED))
    for key in ('epoch', 'iter'):  # the runner writes them; some heads read them
        MessageHub.get_instance('any head').update_info(key, 0)
    loss, _ = model.train().parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert math.isfinite(loss.item())
    (backbone,) = (module for module in model.modules() if isinstance(module, STViT))
    assert len(list(backbone.parameters())) == 348
    assert not_learning(backbone) == []


@torch.no_grad()
def check_prediction(cfg: Config, model: nn.Module) -> None:
    if 'prototype' in cfg.model:  # of a retriever: vectors, in place of a dataset
        model.prototype = torch.eye(8, cfg.model.head.in_channels)
    (sample,) = model.eval()(**batch(cfg, model, 1, False), mode='predict')
    CHECKS[cfg.default_scope](sample)


LONG = [pytest.param(*row, marks=pytest.mark.long, id=row[0]) for row in rows('heads-that-the-tests-run')]
SLOW = [pytest.param(*row, marks=pytest.mark.slow, id=row[0]) for row in rows('more-heads')]


@pytest.mark.parametrize(('stock', 'section'), [*LONG, *SLOW])
def test_head(stock, section, tmp_path):
    with restored(tmp_path):
        cfg = read(recipe(section, stock), tmp_path)
        model = build(cfg)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            check_training(cfg, model)
            check_prediction(cfg, model)


def test_every_recipe_has_a_row():
    others = {'settings-for-training', 'from-swin-or-convnext'}
    recipes = {section for section in sections() if blocks(section)} - others
    assert recipes == {section for _, section in [*rows('heads-that-the-tests-run'), *rows('more-heads')]}
    assert len(recipes) > 15


@pytest.mark.long
@pytest.mark.parametrize(
    ('section', 'right', 'wrong', 'error', 'message'),
    [
        ('fpn', 'neck=dict(in_channels=[64, 128, 320, 512])', '', RuntimeError, '512 channels, but got 128 channels'),
        ('fpn', "arch='small',", "arch='small', out_indices=(1, 2, 3),", AssertionError, '^$'),
        ('dilated-backbones', 'pretrained=None,', '', UserError, "unexpected keyword argument 'pretrained'"),
        ('average-pooling', 'head=dict(in_channels=512)', '', RuntimeError, 'shapes cannot be multiplied'),
    ],
)
def test_what_an_incomplete_recipe_raises(section, right, wrong, error, message, tmp_path):
    (block,) = blocks(section)
    assert right in block
    with restored(tmp_path), pytest.raises(error, match=message):
        cfg = read(block.replace(right, wrong), tmp_path)
        model = build(cfg)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            check_training(cfg, model)


@pytest.mark.long
def test_settings_for_training(tmp_path):
    """The documented settings give the weight decay of our configs: none for norms, in the backbone too."""
    settings = re.findall(r'```python\n(.*?)```', sections()['settings-for-training'], re.DOTALL)
    sgd, adamw = (re.sub(r'^  ', '', text, flags=re.MULTILINE) if text.startswith('  ') else text for text in settings)
    first, _, rest = blocks('three-maps')[0].partition('\n')
    base, _, optimizer = adamw.partition('\n')
    assert first.removeprefix('_base_ = ') in base
    for text, rates in ((blocks('fpn')[0] + sgd, {1e-4}), (base + rest + optimizer, {1e-4, 1e-5})):
        with restored(tmp_path), torch.device('meta'):
            cfg = read(text, tmp_path)
            model = build_model(cfg)
            with DefaultScope.overwrite_default_scope(cfg.default_scope):
                groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
        decays = {id(p): group['weight_decay'] for group in groups for p in group['params']}
        norms = [m for m in model.backbone.modules() if isinstance(m, (nn.BatchNorm2d, nn.LayerNorm))]
        free = {id(p) for norm in norms for p in norm.parameters()}
        assert {group['lr'] for group in groups} == rates
        assert len(free) == 94
        assert {id(p) for p in model.backbone.parameters() if decays[id(p)] == 0} == free
