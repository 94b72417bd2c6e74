"""``tools/test.py --tta`` on the bundled scenes, as a user runs it."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from pycocotools import mask as rle

from ..helpers import ROOT

CONFIG = ROOT / 'configs' / 'mask_rcnn' / 'mask-rcnn_stvit-nano_fpn_scenes.py'

MULTI_SCALE = f"""
_base_ = {str(CONFIG)!r}
tta_model = dict(type='mmstvit.InstanceSegTTAModel', tta_cfg=dict(max_per_img=7))
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (160, 192)],
            [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)],
            [dict(type='PackDetInputs')],
        ],
    ),
]
"""


@pytest.fixture
def checkpoint(workspace: Path) -> Path:
    """Of a detector that learned nothing, but finds something everywhere."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(CONFIG).model)
    torch.save(dict(state_dict=model.state_dict()), workspace / 'random.pth')
    return workspace / 'random.pth'


@pytest.mark.long
@pytest.mark.parametrize('multi_scale', [False, True])
def test_masks_are_on_the_original_images_and_evaluated(multi_scale, workspace, checkpoint, tool):
    config = CONFIG
    if multi_scale:
        config = workspace / 'multi_scale.py'
        config.write_text(MULTI_SCALE)
    out = workspace / 'predictions.pkl'
    args = [config, checkpoint, '--tta', '--out', out, '--work-dir', 'run', '--show-dir', workspace / 'painted']
    done = tool('test.py', *args, cwd=workspace)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = set(re.findall(r'^(coco/\S+) +-?\d+\.\d{4}$', done.stdout, re.MULTILINE))
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= metrics
    # Written by the command above, so not a stranger's file.
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 6
    for prediction in predictions:
        found = prediction['pred_instances']
        assert len(found['masks']) == len(found['bboxes']) == (7 if multi_scale else 20)
        assert {tuple(mask['size']) for mask in found['masks']} == {tuple(prediction['ori_shape'])}
        assert rle.area(found['masks']).max() > 0
        height, width = prediction['ori_shape']
        assert (found['bboxes'] >= 0).all() and (found['bboxes'] <= torch.tensor([width, height] * 2) + 1e-3).all()
    assert len(list((workspace / 'painted').rglob('*.jpg'))) == 6
