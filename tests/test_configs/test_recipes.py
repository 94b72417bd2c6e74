"""The configs state the recipes of the paper and of the official implementation."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope
from torch import nn

from mmstvit.apis import build_model, read_config
from mmstvit.arch import ARCHS

from ..helpers import ROOT, load_config

SIZES = ('small', 'base', 'large')
MASK_RCNN = 'mask_rcnn/mask-rcnn_stvit-{}_fpn_1x_coco'
MASK_RCNN_3X = 'mask_rcnn/mask-rcnn_stvit-{}_fpn_ms-3x_coco'
FASTER_RCNN = 'faster_rcnn/faster-rcnn_stvit-{}_fpn_1x_coco'
CASCADE = 'cascade_mask_rcnn/cascade-mask-rcnn_stvit-{}_fpn_4conv1fc-giou_ms-3x_coco'
UPERNET = 'upernet/stvit-{}_upernet_8xb2-160k_ade20k-512x512'
MASK2FORMER = 'mask2former/mask2former_stvit-small_8xb2-lsj-50e_coco'
MASK2FORMER_SEMANTIC = 'mask2former/mask2former_stvit-small_8xb2-160k_ade20k-512x512'
DINO = 'dino/dino-4scale_stvit-small_8xb2-12e_coco'
IN224 = 'imagenet/stvit-{}_8xb128_in1k'
IN384 = 'imagenet/stvit-{}_8xb64_in1k-384px'
# recipe -> drop path rates of the three sizes
DROP_PATH = {
    IN224: (0.1, 0.4, 0.4),
    IN384: (0.1, 0.4, 0.6),
    MASK_RCNN: (0.1, 0.3, 0.5),
    MASK_RCNN_3X: (0.1, 0.3, 0.5),
    FASTER_RCNN: (0.1, 0.3, 0.5),
    CASCADE: (0.1, 0.3, 0.5),
    UPERNET: (0.1, 0.3, 0.5),
}


def load(name: str, size: str = 'small') -> Config:
    return load_config(name.format(size))


def flatten(node: object, key: str = '') -> Iterator[tuple[str, object]]:
    """Dotted keys and values of nested dicts."""
    if not isinstance(node, Mapping):
        yield key, node
        return
    for name, value in node.items():
        yield from flatten(value, f'{key}.{name}'.lstrip('.'))


def plain(node: object) -> object:
    """Return a setting without the marks of inheritance from another package."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items() if key != '_scope_'}
    return [plain(part) for part in node] if isinstance(node, (list, tuple)) else node


def only(pipeline: list[dict], kind: str) -> dict:
    (step,) = [step for step in pipeline if step['type'] == kind]
    return step


@pytest.mark.parametrize('name', DROP_PATH)
def test_sizes_differ_in_backbone_weights_and_channels_alone(name):
    small = dict(flatten(load(name).to_dict()))
    for i, size in enumerate(SIZES):
        cfg = load(name, size)
        channels = ARCHS[size].channels
        expected = {
            'model.backbone.arch': size,
            'model.backbone.drop_path_rate': DROP_PATH[name][i],
        }
        if name in (IN224, IN384):
            expected['model.neck.in_channels'] = channels[-1]
        else:
            expected['model.backbone.init_cfg.checkpoint'] = f'checkpoints/stvit-{size}-224.pth'
        if name == IN384:
            expected['load_from'] = f'checkpoints/stvit-{size}-224.pth'
        if name == UPERNET:
            expected['model.decode_head.in_channels'] = list(channels)
            expected['model.auxiliary_head.in_channels'] = channels[2]
        elif name not in (IN224, IN384):
            expected['model.neck.in_channels'] = list(channels)
        if name == IN224 and size == 'large':
            expected['custom_hooks'] = [dict(type='mmstvit.DropPathHook', milestones=[260], rates=[0.4, 0.6])]
        assert dict(flatten(cfg.to_dict())) == small | expected


class TestImageNet:
    def test_224_is_the_official_recipe(self):
        cfg = load(IN224)
        assert cfg.model.head.loss == dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')
        assert [(a.type, a.alpha) for a in cfg.model.train_cfg.augments] == [('Mixup', 0.8), ('CutMix', 1.0)]
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 0.05)
        assert 'clip_grad' not in cfg.optim_wrapper and cfg.get('sync_bn') is None
        assert cfg.train_cfg.max_epochs == 300
        assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 1024
        assert cfg.train_dataloader.drop_last
        assert cfg.train_dataloader.sampler == dict(type='RepeatAugSampler', shuffle=True, num_repeats=3)
        pipeline = cfg.train_dataloader.dataset.pipeline
        assert only(pipeline, 'RandomResizedCrop')['scale'] == 224
        augment = only(pipeline, 'RandAugment')  # timm's rand-m9-mstd0.5-inc1
        assert (augment.policies, augment.num_policies) == ('timm_increasing', 2)
        assert (augment.magnitude_level, augment.magnitude_std, augment.total_level) == (9, 0.5, 10)
        assert (only(pipeline, 'RandomErasing').erase_prob, only(pipeline, 'RandomErasing').mode) == (0.25, 'rand')
        test = cfg.test_dataloader.dataset.pipeline
        assert (only(test, 'ResizeEdge').scale, only(test, 'CenterCrop').crop_size) == (256, 224)

    def test_384_fine_tunes_in_eval_mode_at_a_constant_rate(self):
        cfg = load(IN384)
        assert (cfg.optim_wrapper.optimizer.lr, cfg.optim_wrapper.optimizer.weight_decay) == (5e-6, 1e-8)
        assert cfg.param_scheduler == []
        assert cfg.train_cfg.max_epochs == 30
        assert cfg.train_dataloader.batch_size * 8 == cfg.auto_scale_lr.base_batch_size == 512
        assert cfg.custom_hooks == [dict(type='mmstvit.EvalModeHook')]
        large, small = cfg.train_dataloader.dataset.pipeline, load(IN224).train_dataloader.dataset.pipeline
        assert only(large, 'RandomResizedCrop') == {**only(small, 'RandomResizedCrop'), 'scale': 384}
        assert large[2:] == small[2:]
        test = cfg.test_dataloader.dataset.pipeline
        assert (only(test, 'ResizeEdge').scale, only(test, 'CenterCrop').crop_size) == (384, 384)


def test_every_ablation_has_its_own_model_and_the_recipe_of_224():
    paths = sorted((ROOT / 'configs/imagenet/ablations').glob('*.py'))
    recipe = load_config('imagenet/stvit-small_8xb128_in1k').to_dict()
    models = []
    for path in paths:
        cfg = load_config(f'imagenet/ablations/{path.stem}').to_dict()
        models.append(cfg.pop('model'))
        groups = cfg['optim_wrapper']['paramwise_cfg'].pop('custom_keys', {})
        position = models[-1]['backbone'].get('pos_embed')
        assert len(groups) == (position in ('ape', 'rpe'))
        assert cfg == {key: value for key, value in recipe.items() if key != 'model'}
    assert len(paths) == 14
    assert all(models.index(model) == i for i, model in enumerate(models))


class TestDetection:
    @pytest.mark.parametrize(('name', 'epochs', 'milestones'), [(MASK_RCNN, 12, [8, 11]), (MASK_RCNN_3X, 36, [27, 33])])
    def test_mask_rcnn_is_the_recipe_of_the_paper(self, name, epochs, milestones):
        cfg = load(name)
        optimizer = cfg.optim_wrapper.optimizer
        assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-4, 0.05)
        assert cfg.auto_scale_lr.base_batch_size == 16
        assert cfg.train_cfg.max_epochs == cfg.param_scheduler[-1].end == epochs
        assert cfg.param_scheduler[-1].milestones == milestones

    def test_faster_rcnn_has_the_recipe_of_mask_rcnn_without_masks(self):
        cfg, mask_rcnn = (dict(flatten(load(name).to_dict())) for name in (FASTER_RCNN, MASK_RCNN))
        different = {key for key in cfg | mask_rcnn if cfg.get(key) != mask_rcnn.get(key)}
        others = ('model.type', 'model.roi_head.mask_', 'model.data_preprocessor.pad_mask', 'model.train_cfg.rcnn')
        others += ('model.test_cfg.rcnn.mask_thr_binary', 'tta_', 'train_', 'val_', 'test_')
        assert {key for key in different if not key.startswith(others)} == set()
        for split in ('train', 'val', 'test'):
            steps = load(FASTER_RCNN)[f'{split}_dataloader'].dataset.pipeline
            assert steps == [
                dict(type='LoadAnnotations', with_bbox=True) if step.type == 'LoadAnnotations' else step
                for step in load(MASK_RCNN)[f'{split}_dataloader'].dataset.pipeline
            ]

    def test_multi_scale_draws_the_short_side_from_480_to_800(self):
        pipeline = load(MASK_RCNN_3X).train_dataloader.dataset.pipeline
        (resize,) = [step for step in pipeline if 'Resize' in step.type]
        assert resize.type == 'RandomChoiceResize' and resize.keep_ratio
        sides, limits = zip(*resize.scales, strict=True)
        assert (min(sides), max(sides), set(limits)) == (480, 800, {1333})

    def test_cascade_has_the_recipe_of_mask_rcnn_and_other_heads(self):
        cfg, mask_rcnn = (dict(flatten(load(name).to_dict())) for name in (CASCADE, MASK_RCNN_3X))
        heads = ('model.type', 'model.roi_head', 'model.train_cfg', 'model.test_cfg', 'model.rpn_head', 'cascade_heads')
        different = {key for key in cfg | mask_rcnn if cfg.get(key) != mask_rcnn.get(key)}
        assert {key for key in different if not key.startswith(heads)} == set()


def test_upernet_has_the_recipe_of_swin():
    cfg = load(UPERNET)
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 150
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 6e-5, 0.01)
    assert (cfg.train_cfg.max_iters, cfg.train_dataloader.batch_size * 8) == (160000, 16)
    warmup, poly = cfg.param_scheduler
    assert (warmup.type, warmup.end, poly.type, poly.begin, poly.end) == ('LinearLR', 1500, 'PolyLR', 1500, 160000)
    assert (poly.power, poly.eta_min, cfg.auto_scale_lr.base_batch_size) == (1.0, 0.0, 16)


class TestTransformers:
    """The configs beside the paper keep the recipe of their library."""

    DATA = ('train_dataloader', 'val_dataloader', 'val_evaluator')
    SCHEDULE = ('train_cfg', 'param_scheduler', 'auto_scale_lr', 'optim_wrapper')
    OURS = ('model.backbone.', 'optim_wrapper.paramwise_cfg.custom_keys.')

    def differences(self, name: str, stock: Config) -> dict[str, tuple[object, object]]:
        """Return the settings that are different, beside backbone and weight decay, as (ours, theirs) by key."""
        ours, theirs = (
            dict(flatten({key: cfg[key] for key in ('model', *self.DATA, *self.SCHEDULE)}))
            for cfg in (load(name), stock)
        )
        keys = {key for key in ours | theirs if not key.endswith('_scope_') and not key.startswith(self.OURS)}
        found = {key: (plain(ours.get(key)), plain(theirs.get(key))) for key in keys}
        return {key: pair for key, pair in found.items() if pair[0] != pair[1]}

    def test_mask2former_of_mmdet(self):
        stock = read_config('mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py', None)
        assert set(self.differences(MASK2FORMER, stock)) == {
            'model.panoptic_head.in_channels',
            'optim_wrapper.optimizer.fused',
            *(f'{split}_dataloader.dataset.data_prefix.seg' for split in ('train', 'val')),
        }

    def test_dino_of_mmdet(self):
        stock = read_config('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', None)
        assert set(self.differences(DINO, stock)) == {'model.neck.in_channels', 'optim_wrapper.optimizer.fused'}
        assert load(DINO).model.neck.in_channels == list(ARCHS['small'].channels[1:])

    def test_mask2former_of_mmseg(self):
        folder = Path(importlib.util.find_spec('mmseg').origin).parent / '.mim/configs/mask2former'
        stock = Config.fromfile(folder / 'mask2former_swin-t_8xb2-160k_ade20k-512x512.py')
        found = self.differences(MASK2FORMER_SEMANTIC, stock)
        # Ours leaves out the arguments that are defaults.
        assert {key for key, (ours, theirs) in found.items() if ours is not None and theirs is not None} == {
            'model.decode_head.in_channels',
            *(f'{split}_dataloader.dataset.pipeline' for split in ('train', 'val')),
        }
        for split in ('train_dataloader', 'val_dataloader'):
            ours, theirs = (cfg[split].dataset.pipeline for cfg in (load(MASK2FORMER_SEMANTIC), stock))
            only(theirs, 'LoadAnnotations').pop('reduce_zero_label')  # the dataset says it, too
            assert plain(ours) == plain(theirs)
        heads = []
        for cfg in (load(MASK2FORMER_SEMANTIC), stock):
            cfg.model.decode_head.in_channels = list(ARCHS['small'].channels)
            with torch.device('meta'), DefaultScope.overwrite_default_scope('mmseg'):
                heads.append(MODELS.build(cfg.model.decode_head))
        ours, theirs = ({name: p.shape for name, p in head.named_parameters()} for head in heads)
        assert ours == theirs


@pytest.mark.parametrize('name', [CASCADE, UPERNET])
def test_every_batch_norm_is_synchronized_when_distributed(name):
    cfg = load(name)
    assert cfg.sync_bn == 'torch'
    with torch.device('meta'):
        model = build_model(cfg)
    plain = sum(type(m) is nn.BatchNorm2d for m in model.modules())
    assert plain > 30
    converted = convert_sync_batchnorm(model, cfg.sync_bn)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in converted.modules()) == plain
    assert not any(type(m) is nn.BatchNorm2d for m in converted.modules())


@pytest.mark.parametrize(('name', 'scales'), [(UPERNET, 6), (MASK_RCNN, 3)])
def test_augmented_tests_see_every_scale_flipped_and_not(name, scales):
    cfg = load(name)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        (augment,) = [TRANSFORMS.build(step) for step in cfg.tta_pipeline if step.type == 'TestTimeAug']
    views = {(view.transforms[0].scale, view.transforms[1].prob) for view in augment.subroutines}
    assert len(augment.subroutines) == len(views) == 2 * scales
    assert {prob for _, prob in views} == {0.0, 1.0}


def test_every_config_stops_a_run_that_diverged():
    paths = sorted((ROOT / 'configs').glob('[!_]*/*.py'))
    hooks = {path.stem: load_config(f'{path.parent.name}/{path.stem}').default_hooks for path in paths}
    assert len(hooks) == 30
    assert {name for name, hook in hooks.items() if hook.check_finite.type != 'mmstvit.CheckFiniteHook'} == set()
