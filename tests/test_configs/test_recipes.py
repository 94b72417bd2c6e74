"""The configs state the recipes of their libraries, and sizes of one recipe differ in the backbone alone."""

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import convert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmstvit.apis import build_model
from mmstvit.arch import ARCHS

from ..helpers import load_config

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


def load(name: str, size: str = 'small') -> Config:
    return load_config(name.format(size))


def read_stock(name: str) -> Config:
    """Read a config that a library ships."""
    library, path = name.split('::')
    return Config.fromfile(Path(importlib.util.find_spec(library).origin).parent / '.mim/configs' / path)


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


SIZE_KEYS = ('model.backbone.arch', 'model.backbone.drop_path_rate', 'model.backbone.init_cfg.checkpoint', 'load_from')


@pytest.mark.parametrize('name', [IN224, IN384, MASK_RCNN, MASK_RCNN_3X, FASTER_RCNN, CASCADE, UPERNET])
def test_sizes_differ_in_backbone_weights_and_channels_alone(name):
    small = dict(flatten(load(name).to_dict()))
    for size in ('base', 'large'):
        found, channels = dict(flatten(load(name, size).to_dict())), ARCHS[size].channels
        expected = {key: found[key] for key in SIZE_KEYS if key in found}
        if name in (IN224, IN384):
            expected['model.neck.in_channels'] = channels[-1]
        elif name == UPERNET:
            expected['model.decode_head.in_channels'] = list(channels)
            expected['model.auxiliary_head.in_channels'] = channels[2]
        else:
            expected['model.neck.in_channels'] = list(channels)
        if name == IN224 and size == 'large':  # whose stochastic depth rises
            expected['custom_hooks'] = found['custom_hooks']
        assert found == small | expected
        assert found['model.backbone.arch'] == size
        assert all(f'stvit-{size}-' in value for key, value in found.items() if key in SIZE_KEYS[2:] and value)


SETTINGS = (
    *('model', 'train_dataloader', 'val_dataloader', 'val_evaluator'),
    *('train_cfg', 'param_scheduler', 'auto_scale_lr', 'optim_wrapper'),
)
# Keys that always differ: backbone, weight decay of its parts, and what depends on the computer.
OWN = ('model.backbone.', 'optim_wrapper.paramwise_cfg.', 'optim_wrapper.optimizer.fused')
OWN_ENDS = ('_scope_', '.num_workers', '.pin_memory', '.persistent_workers')
# Recipe -> the stock config from which it comes, and the other keys that differ.
RECIPES = {
    MASK_RCNN: ('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_1x_coco.py', 'model.neck.in_channels'),
    MASK_RCNN_3X: (
        'mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py',
        'model.neck.in_channels train_dataloader.dataset.pipeline',  # without the crop
    ),
    FASTER_RCNN: (  # with the schedule of Swin
        'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
        'model.neck.in_channels param_scheduler optim_wrapper.optimizer.type optim_wrapper.optimizer.lr '
        'optim_wrapper.optimizer.weight_decay optim_wrapper.optimizer.betas optim_wrapper.optimizer.momentum',
    ),
    UPERNET: (
        'mmseg::swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        'model.decode_head.in_channels model.decode_head.norm_cfg.type model.auxiliary_head.in_channels '
        'model.auxiliary_head.norm_cfg.type auto_scale_lr.base_batch_size auto_scale_lr.enable '
        'train_dataloader.dataset.pipeline val_dataloader.dataset.pipeline',
    ),
    MASK2FORMER: (
        'mmdet::mask2former/mask2former_swin-t-p4-w7-224_8xb2-lsj-50e_coco.py',
        'model.panoptic_head.in_channels train_dataloader.dataset.data_prefix.seg '
        'val_dataloader.dataset.data_prefix.seg',
    ),
    DINO: ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 'model.neck.in_channels'),
    IN224: (  # repeated augmentation, the schedule of timm, and no gradient clipping, as the official implementation
        'mmpretrain::deit/deit-small_4xb256_in1k.py',
        'model.neck.type model.neck.in_channels model.head.type model.head.in_channels model.head.cal_acc '
        'model.head.init_cfg.type model.head.init_cfg.layer model.head.init_cfg.std model.head.init_cfg.bias '
        'model.init_cfg train_dataloader.batch_size val_dataloader.batch_size train_dataloader.drop_last '
        'train_dataloader.sampler.type train_dataloader.sampler.num_repeats optim_wrapper.clip_grad.max_norm '
        'optim_wrapper.type param_scheduler param_scheduler.type param_scheduler.end param_scheduler.eta_min '
        'param_scheduler.warmup_epochs param_scheduler.warmup_lr',
    ),
}
SEMANTIC = 'mmseg::mask2former/mask2former_swin-t_8xb2-160k_ade20k-512x512.py'


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_is_that_of_the_library(name):
    stock, different = RECIPES[name]
    ours, theirs = (dict(flatten({key: cfg.get(key) for key in SETTINGS})) for cfg in (load(name), read_stock(stock)))
    keys = {key for key in ours | theirs if not key.startswith(OWN) and not key.endswith(OWN_ENDS)}
    assert {key for key in keys if plain(ours.get(key)) != plain(theirs.get(key))} == set(different.split())


def test_multi_scale_resizes_as_that_of_the_library():
    configs = load(MASK_RCNN_3X), read_stock(RECIPES[MASK_RCNN_3X][0])
    ours, theirs = (cfg.train_dataloader.dataset.pipeline for cfg in configs)
    assert plain(only(ours, 'RandomChoiceResize')) == plain(only(theirs, 'RandomChoice')['transforms'][0][0])


def test_cascade_has_the_recipe_of_mask_rcnn_and_other_heads():
    cfg, mask_rcnn = (dict(flatten(load(name).to_dict())) for name in (CASCADE, MASK_RCNN_3X))
    heads = ('model.type', 'model.roi_head', 'model.train_cfg', 'model.test_cfg', 'model.rpn_head', 'cascade_heads')
    different = {key for key in cfg | mask_rcnn if cfg.get(key) != mask_rcnn.get(key)}
    assert {key for key in different if not key.startswith(heads)} == set()


@pytest.mark.parametrize(('name', 'stock'), [(UPERNET, RECIPES[UPERNET][0]), (MASK2FORMER_SEMANTIC, SEMANTIC)])
def test_segmentors_read_ade20k_as_those_of_the_library(name, stock):
    stock = read_stock(stock)
    for split in ('train_dataloader', 'val_dataloader'):
        ours, theirs = (cfg[split].dataset.pipeline for cfg in (load(name), stock))
        only(theirs, 'LoadAnnotations').pop('reduce_zero_label')  # the dataset says it, too
        assert plain(ours) == plain(theirs)


def test_semantic_mask2former_has_the_head_of_the_library():
    """Our config leaves out the arguments that are defaults."""
    heads = []
    for cfg in (load(MASK2FORMER_SEMANTIC), read_stock(SEMANTIC)):
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
    plain = sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    assert plain > 30
    converted = convert_sync_batchnorm(model, cfg.sync_bn)
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in converted.modules()) == plain
    assert not any(isinstance(m, nn.BatchNorm2d) for m in converted.modules())
