"""Every config of the paper runs: two training iterations and a validation batch on data in the real layouts.

Only sizes are reduced, by ``--cfg-options``; pipelines, losses, hooks and evaluators are the config's own.
"""

import json
import math
from pathlib import Path

import pytest

from ..helpers import ROOT

SMALL_DATA = [
    'train_dataloader.num_workers=1', 'val_dataloader.num_workers=1', 'train_dataloader.batch_size=2',
    'val_dataloader.batch_size=1', 'val_dataloader.dataset.indices=2', 'default_hooks.logger.interval=1',
]  # fmt: skip
ONE_EPOCH = ['train_dataloader.dataset.indices=4', 'train_cfg.max_epochs=1', 'default_hooks.checkpoint.interval=9']
ONE_EPOCH += ['default_hooks.checkpoint.save_last=False']
TWO_ITERATIONS = ['train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.save_last=False']

DETECTION = [
    *ONE_EPOCH, 'model.backbone.init_cfg=None', 'val_dataloader.dataset.pipeline.1.scale="(224,224)"',
    # The scores of an untrained model are low; then every class of every proposal goes through NMS.
    'model.test_cfg.rcnn.score_thr=0', 'model.test_cfg.rcnn.max_per_img=9', 'model.test_cfg.rpn.max_per_img=20',
]  # fmt: skip
MASK_RCNN = [*DETECTION, 'model.train_cfg.rcnn.sampler.num=32']
CASCADE = [*DETECTION, *(f'model.train_cfg.rcnn.{stage}.sampler.num=32' for stage in range(3))]
SINGLE_SCALE = 'train_dataloader.dataset.pipeline.2.scale="(224,224)"'
MULTI_SCALE = 'train_dataloader.dataset.pipeline.2.scales="[(192,224),(224,224)]"'
SEGMENTATION = [
    *TWO_ITERATIONS, 'model.backbone.init_cfg=None', 'model.data_preprocessor.size="(128,128)"',
    'train_dataloader.dataset.pipeline.2.scale="(256,128)"',
    'train_dataloader.dataset.pipeline.3.crop_size="(128,128)"',
    'val_dataloader.dataset.pipeline.1.scale="(256,128)"',
]  # fmt: skip
CLASSIFICATION = [
    *ONE_EPOCH, 'load_from=None', 'train_dataloader.dataset.pipeline.1.scale=64',
    'val_dataloader.dataset.pipeline.1.scale=72', 'val_dataloader.dataset.pipeline.2.crop_size=64',
]  # fmt: skip

# family -> options, what the training log has, what validation reports
FAMILIES = {
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
    'upernet': (SEGMENTATION, {'decode.loss_ce', 'aux.loss_ce'}, {'mIoU'}),
    'imagenet': (CLASSIFICATION, {'loss'}, {'accuracy/top1', 'accuracy/top5'}),
}
CONFIGS = sorted(
    f'{family}/{path.stem}'
    for family in FAMILIES
    for path in (ROOT / 'configs' / family).glob('*.py')
    if 'scenes' not in path.stem and 'fsdp' not in path.stem
)


def test_the_paper_is_complete():
    sizes = ('small', 'base', 'large')
    expected = {f'mask_rcnn/mask-rcnn_stvit-{s}_fpn_{k}_coco' for s in sizes for k in ('1x', 'ms-3x')}
    expected |= {f'cascade_mask_rcnn/cascade-mask-rcnn_stvit-{s}_fpn_4conv1fc-giou_ms-3x_coco' for s in sizes}
    expected |= {f'upernet/stvit-{s}_upernet_8xb2-160k_ade20k-512x512' for s in sizes}
    expected |= {f'imagenet/stvit-{s}_{k}' for s in sizes for k in ('8xb128_in1k', '8xb64_in1k-384px')}
    assert set(CONFIGS) == expected


@pytest.mark.long
@pytest.mark.parametrize('config', CONFIGS)
def test_trains_two_iterations_and_validates(config, trees, tmp_path, tool):
    family = Path(config).parent.name
    options, losses, metrics = FAMILIES[family]
    options = [*SMALL_DATA, *options]
    if family.endswith('mask_rcnn'):
        options.append(SINGLE_SCALE if '_1x_' in config else MULTI_SCALE)
    done = tool(
        'train.py', ROOT / 'configs' / f'{config}.py', '--work-dir', tmp_path, '--cfg-options', *options, cwd=trees
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    steps = [row for row in rows if 'loss' in row]
    assert len(steps) == 2
    assert all(math.isfinite(row['loss']) for row in steps)
    assert losses <= set(steps[0])
    assert all(steps[0][name] > 0 for name in losses)
    assert metrics <= set(rows[-1])
    assert not list(tmp_path.glob('*.pth'))
