"""The configs state the recipes of the paper and of the released training code."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from mmengine.registry import TRANSFORMS, DefaultScope
from torch import nn

from mmstvit.apis import build_model
from mmstvit.arch import ARCHS

from ..helpers import ROOT, load_config

SIZES = ('small', 'base', 'large')
DROP_PATH = {'small': 0.1, 'base': 0.3, 'large': 0.5}  # of detectors and segmentors
MASK_RCNN = 'mask_rcnn/mask-rcnn_stvit-{}_fpn_1x_coco'
MASK_RCNN_3X = 'mask_rcnn/mask-rcnn_stvit-{}_fpn_ms-3x_coco'
CASCADE = 'cascade_mask_rcnn/cascade-mask-rcnn_stvit-{}_fpn_4conv1fc-giou_ms-3x_coco'
UPERNET = 'upernet/stvit-{}_upernet_8xb2-160k_ade20k-512x512'
IN224 = 'imagenet/stvit-{}_8xb128_in1k'
IN384 = 'imagenet/stvit-{}_8xb64_in1k-384px'


def load(name: str, size: str) -> Config:
    return load_config(name.format(size))


def only(pipeline: list[dict], kind: str) -> dict:
    (step,) = [step for step in pipeline if step['type'] == kind]
    return step


@pytest.mark.parametrize('size', SIZES)
class TestImageNet:
    def test_model(self, size):
        for name in (IN224, IN384):
            model = load(name, size).model
            assert model.backbone.arch == size
            assert model.neck.in_channels == ARCHS[size].channels[-1]
            assert model.head.loss == dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')
            assert [(a.type, a.alpha) for a in model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]

    def test_stochastic_depth(self, size):
        first, later = {'small': (0.1, 0.1), 'base': (0.4, 0.4), 'large': (0.4, 0.6)}[size]
        cfg = load(IN224, size)
        assert cfg.model.backbone.drop_path_rate == first
        hooks = cfg.get('custom_hooks', [])
        expected = [dict(type='mmstvit.DropPathHook', milestones=[260], rates=[0.4, 0.6])] if size == 'large' else []
        assert hooks == expected
        assert load(IN384, size).model.backbone.drop_path_rate == later

    def test_224_is_the_releases_regime(self, size):
        cfg = load(IN224, size)
        assert cfg.optim_wrapper.optimizer == dict(
            type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True
        )
        assert 'clip_grad' not in cfg.optim_wrapper
        assert cfg.train_cfg.max_epochs == 300 and cfg.auto_scale_lr.base_batch_size == 1024
        assert cfg.train_dataloader.batch_size == 128 and cfg.train_dataloader.drop_last
        assert cfg.train_dataloader.sampler == dict(type='RepeatAugSampler', shuffle=True, num_repeats=3)
        assert cfg.get('sync_bn') is None
        pipeline = cfg.train_dataloader.dataset.pipeline
        assert only(pipeline, 'RandomResizedCrop')['scale'] == 224
        augment = only(pipeline, 'RandAugment')
        assert (augment.policies, augment.num_policies) == ('timm_increasing', 2)
        assert (augment.magnitude_level, augment.magnitude_std, augment.total_level) == (9, 0.5, 10)
        assert (only(pipeline, 'RandomErasing').erase_prob, only(pipeline, 'RandomErasing').mode) == (0.25, 'rand')
        test = cfg.test_dataloader.dataset.pipeline
        assert (only(test, 'ResizeEdge').scale, only(test, 'CenterCrop').crop_size) == (256, 224)

    def test_384_fine_tunes_in_evaluation_mode_at_a_constant_rate(self, size):
        cfg = load(IN384, size)
        assert cfg.load_from == f'checkpoints/stvit-{size}-224_mm.pth'
        assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (5e-6, 1e-8)
        assert cfg.param_scheduler == []
        assert cfg.train_cfg.max_epochs == 30 and cfg.auto_scale_lr.base_batch_size == 512
        assert cfg.custom_hooks == [dict(type='mmstvit.EvalModeHook')]
        large, small = cfg.train_dataloader.dataset.pipeline, load(IN224, size).train_dataloader.dataset.pipeline
        assert only(large, 'RandomResizedCrop') == {**only(small, 'RandomResizedCrop'), 'scale': 384}
        assert large[2:] == small[2:]
        test = cfg.test_dataloader.dataset.pipeline
        assert (only(test, 'ResizeEdge').scale, only(test, 'CenterCrop').crop_size) == (384, 384)


@pytest.mark.parametrize('size', SIZES)
class TestMaskRCNN:
    @pytest.mark.parametrize(('name', 'epochs', 'milestones'), [(MASK_RCNN, 12, [8, 11]), (MASK_RCNN_3X, 36, [27, 33])])
    def test_states_the_papers_recipe(self, size, name, epochs, milestones):
        cfg = load(name, size)
        assert cfg.model.backbone.type == 'mmstvit.STViT'
        assert cfg.model.backbone.arch == size
        assert cfg.model.backbone.drop_path_rate == DROP_PATH[size]
        assert tuple(cfg.model.neck.in_channels) == ARCHS[size].channels
        assert cfg.model.backbone.init_cfg.checkpoint == f'checkpoints/stvit-{size}-224_mm.pth'
        assert cfg.optim_wrapper.optimizer == dict(
            type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True
        )
        assert cfg.auto_scale_lr.base_batch_size == 16
        assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == epochs
        assert cfg.param_scheduler[-1].milestones == milestones

    def test_multi_scale_draws_the_short_side_from_480_to_800(self, size):
        pipeline = load(MASK_RCNN_3X, size).train_dataloader.dataset.pipeline
        (resize,) = [step for step in pipeline if 'Resize' in step.type]
        assert resize.type == 'RandomChoiceResize' and resize.keep_ratio
        assert [tuple(scale) for scale in resize.scales] == [(side, 1333) for side in range(480, 801, 32)]


@pytest.mark.parametrize('size', SIZES)
def test_cascade_is_mask_rcnns_recipe_with_three_heads(size):
    cfg = load(CASCADE, size)
    mask_rcnn = load(MASK_RCNN_3X, size)
    for key in ('optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'tta_pipeline', 'sync_bn'):
        assert cfg[key] == mask_rcnn[key]
    assert cfg.model.backbone == mask_rcnn.model.backbone
    assert cfg.model.neck == mask_rcnn.model.neck
    heads = cfg.model.roi_head.bbox_head
    assert [tuple(head.bbox_coder.target_stds) for head in heads] == [
        (0.1, 0.1, 0.2, 0.2),
        (0.05, 0.05, 0.1, 0.1),
        (0.033, 0.033, 0.067, 0.067),
    ]
    for head in heads:
        assert (head.num_shared_convs, head.num_shared_fcs, head.reg_decoded_bbox) == (4, 1, True)
        assert (head.loss_bbox.type, head.loss_bbox.loss_weight) == ('GIoULoss', 10.0)


@pytest.mark.parametrize('size', SIZES)
def test_upernet_is_swins_recipe(size):
    cfg = load(UPERNET, size)
    assert cfg.model.backbone.arch == size
    assert cfg.model.backbone.drop_path_rate == DROP_PATH[size]
    assert tuple(cfg.model.decode_head.in_channels) == ARCHS[size].channels
    assert cfg.model.auxiliary_head.in_channels == ARCHS[size].channels[2]
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 150
    assert cfg.model.test_cfg == dict(mode='whole')
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01, fused=True)
    assert (cfg.train_cfg.max_iters, cfg.train_dataloader.batch_size) == (160000, 2)
    warmup, poly = cfg.param_scheduler
    assert (warmup.type, warmup.end, poly.type, poly.begin, poly.end) == ('LinearLR', 1500, 'PolyLR', 1500, 160000)
    assert (poly.power, poly.eta_min, cfg.auto_scale_lr.base_batch_size) == (1.0, 0.0, 16)


def test_every_batch_norm_of_a_detector_and_a_segmentor_is_synchronised_when_distributed():
    for name in (CASCADE, UPERNET):
        cfg = load(name, 'small')
        assert cfg.sync_bn == 'torch'
        with torch.device('meta'):
            model = build_model(cfg)
        plain = sum(type(m) is nn.BatchNorm2d for m in model.modules())
        assert plain > 30
        converted = convert_sync_batchnorm(model, cfg.sync_bn)
        assert sum(isinstance(m, nn.SyncBatchNorm) for m in converted.modules()) == plain
        assert not any(type(m) is nn.BatchNorm2d for m in converted.modules())


@pytest.mark.parametrize('name', [CASCADE, UPERNET, MASK_RCNN])
def test_augmented_tests_see_every_scale_flipped_and_not(name):
    cfg = load(name, 'small')
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        (augment,) = [TRANSFORMS.build(step) for step in cfg.tta_pipeline if step.type == 'TestTimeAug']
    scales = 6 if 'upernet' in name else 3
    assert len(augment.subroutines) == 2 * scales
    views = {(view.transforms[0].scale, view.transforms[1].prob) for view in augment.subroutines}
    assert len(views) == 2 * scales and {prob for _, prob in views} == {0.0, 1.0}


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('[!_]*/*.py')), ids=lambda path: path.stem)
def test_a_diverged_training_stops(path):
    cfg = load_config(f'{path.parent.name}/{path.stem}')
    assert cfg.default_hooks.check_finite == dict(type='mmstvit.CheckFiniteHook')
