"""Every config of COCO, ADE20K and ImageNet runs: two training iterations and a validation batch in the real layouts.

Only sizes are reduced, by ``--cfg-options``; pipelines, losses, hooks and evaluators are the config's own.
"""

import gc
import math
from pathlib import Path

import pytest

from ..helpers import ROOT, scalars
from ..in_process import run_main

SMALL_DATA = [
    'val_dataloader.batch_size=1', 'val_dataloader.dataset.indices=2', 'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.save_last=False',
    *(f'{split}_dataloader.{key}=0' for split in ('train', 'val') for key in ('num_workers', 'persistent_workers')),
]  # fmt: skip
ONE_EPOCH = ['train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=9']

DETECTION = [
    *ONE_EPOCH, 'train_dataloader.batch_size=1', 'train_dataloader.dataset.indices=2', 'model.backbone.init_cfg=None',
    'val_dataloader.dataset.pipeline.1.scale="(96,96)"',
    # The scores of an untrained model are low; then every class of every proposal goes through NMS.
    'model.test_cfg.rcnn.score_thr=0', 'model.test_cfg.rcnn.max_per_img=9', 'model.test_cfg.rpn.max_per_img=20',
]  # fmt: skip
MASK_RCNN = [*DETECTION, 'model.train_cfg.rcnn.sampler.num=16']
CASCADE = [*DETECTION, *(f'model.train_cfg.rcnn.{stage}.sampler.num=16' for stage in range(3))]
MASK2FORMER = [
    'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_cfg.dynamic_intervals=None',
    'train_dataloader.batch_size=1', 'model.backbone.init_cfg=None',
    'model.data_preprocessor.batch_augments.0.size="(96,96)"',
    'train_dataloader.dataset.pipeline.3.scale="(96,96)"', 'train_dataloader.dataset.pipeline.4.crop_size="(96,96)"',
    'val_dataloader.dataset.pipeline.1.scale="(96,96)"',
    'model.train_cfg.num_points=64', 'model.test_cfg.max_per_image=9',
]  # fmt: skip
DINO = [
    *ONE_EPOCH, 'train_dataloader.batch_size=1', 'train_dataloader.dataset.indices=2', 'model.backbone.init_cfg=None',
    *(f'train_dataloader.dataset.pipeline.3.transforms.{i}.scales="[(80,96),(96,96)]"' for i in ('0.0', '1.0', '1.2')),
    'train_dataloader.dataset.pipeline.3.transforms.1.1.crop_size="(64,80)"',
    'val_dataloader.dataset.pipeline.1.scale="(96,96)"', 'model.num_queries=30', 'model.test_cfg.max_per_img=9',
]  # fmt: skip
SINGLE_SCALE = 'train_dataloader.dataset.pipeline.2.scale="(96,96)"'
MULTI_SCALE = 'train_dataloader.dataset.pipeline.2.scales="[(80,96),(96,96)]"'
SEGMENTATION = [
    'train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'train_dataloader.batch_size=2',
    'model.backbone.init_cfg=None', 'model.data_preprocessor.size="(96,96)"',
    'train_dataloader.dataset.pipeline.2.scale="(192,96)"', 'train_dataloader.dataset.pipeline.3.crop_size="(96,96)"',
    'val_dataloader.dataset.pipeline.1.scale="(128,96)"',
]  # fmt: skip
MASK2FORMER_SEMANTIC = [
    *SEGMENTATION, 'train_dataloader.dataset.pipeline.2.scales="[96,128]"', 'model.decode_head.train_cfg.num_points=64',
    'default_hooks.checkpoint.save_best=None',
]  # fmt: skip
CLASSIFICATION = [
    *ONE_EPOCH, 'train_dataloader.batch_size=2', 'train_dataloader.dataset.indices=4', 'load_from=None',
    'train_dataloader.dataset.pipeline.1.scale=64', 'val_dataloader.dataset.pipeline.1.scale=72',
    'val_dataloader.dataset.pipeline.2.crop_size=64',
]  # fmt: skip

# family -> options, what the training log has, what validation reports
FAMILIES = {
    'faster_rcnn': (MASK_RCNN, {'loss_rpn_cls', 'loss_cls', 'loss_bbox'}, {'coco/bbox_mAP'}),
    'mask_rcnn': (
        MASK_RCNN,
        {'loss_rpn_cls', 'loss_cls', 'loss_bbox', 'loss_mask'},
        {'coco/bbox_mAP', 'coco/segm_mAP'},
    ),
    'cascade_mask_rcnn': (
        CASCADE,
        {f's{stage}.loss_{kind}' for stage in range(3) for kind in ('cls', 'bbox', 'mask')},
        {'coco/bbox_mAP', 'coco/segm_mAP'},
    ),
    'dino': (
        DINO,
        {f'{prefix}loss_{kind}' for prefix in ('', 'enc_', 'dn_', 'd4.') for kind in ('cls', 'bbox', 'iou')},
        {'coco/bbox_mAP'},
    ),
    'mask2former': (
        MASK2FORMER,
        {f'{prefix}loss_{kind}' for prefix in ('', 'd0.', 'd8.') for kind in ('cls', 'mask', 'dice')},
        {'coco/bbox_mAP', 'coco/segm_mAP'},
    ),
    'upernet': (SEGMENTATION, {'decode.loss_ce', 'aux.loss_ce'}, {'mIoU'}),
    'imagenet': (CLASSIFICATION, {'loss'}, {'accuracy/top1', 'accuracy/top5'}),
    'ablations': (
        [*CLASSIFICATION, 'model.backbone.img_size=64'], {'loss'}, {'accuracy/top1', 'accuracy/top5'},
    ),
}  # fmt: skip
# A config that is unlike the others of its family.
SEMANTIC = 'mask2former/mask2former_stvit-small_8xb2-160k_ade20k-512x512'
OTHERS = {
    SEMANTIC: (
        MASK2FORMER_SEMANTIC,
        {f'decode.{prefix}loss_{kind}' for prefix in ('', 'd0.', 'd8.') for kind in ('cls', 'mask', 'dice')},
        {'mIoU'},
    )
}
CONFIGS = sorted(
    f'{family}/{path.stem}'
    for family in FAMILIES
    for path in (ROOT / 'configs' / family).glob('*.py')
    if 'scenes' not in path.stem
)
# Of the ablations, those with layers of their own; the settings of the others are among them.
ABLATIONS = ['stvit-small_sta-stem-projection-ape', 'stvit-small_sta-rpe', 'stvit-small_sta-iter-0']


def test_every_config_runs():
    """Except those for the bundled scenes, which the tests of the tools train."""
    folders = {path.parent.name for path in (ROOT / 'configs').glob('[!_]*/*.py')}
    assert folders == {*FAMILIES} - {'ablations'} and len(CONFIGS) > 20


def is_slow(config: str) -> bool:
    """Return True for base and large, which differ from small as test_recipes.py says; one of them has its own hook."""
    return 'stvit-small' not in config and config != 'imagenet/stvit-large_8xb128_in1k'


RUNS = [*CONFIGS, *(f'imagenet/ablations/{name}_8xb128_in1k' for name in ABLATIONS)]


@pytest.mark.parametrize(
    'config', [pytest.param(run, marks=pytest.mark.slow if is_slow(run) else pytest.mark.long) for run in RUNS]
)
def test_trains_two_iterations_and_validates(config, trees, tmp_path):
    family = Path(config).parent.name
    options, losses, metrics = OTHERS.get(config) or FAMILIES[family]
    options = [*SMALL_DATA, *options]
    if family.endswith('rcnn'):
        options.append(SINGLE_SCALE if '_1x_' in config else MULTI_SCALE)
    run_main('train.py', ROOT / f'configs/{config}.py', '--work-dir', tmp_path, '--cfg-options', *options, cwd=trees)
    gc.collect()  # runners refer to themselves
    rows = scalars(tmp_path)
    steps = [row for row in rows if 'loss' in row]
    assert len(steps) == 2
    assert all(math.isfinite(row['loss']) for row in steps)
    assert losses <= set(steps[0])
    assert all(steps[0][name] > 0 for name in losses)
    assert metrics <= set(rows[-1])
    assert not list(tmp_path.glob('*.pth'))
