"""``tools/test.py --tta`` with every family on the bundled scenes."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from pycocotools import mask as rle
from torch import Tensor, nn

from mmstvit.apis import build_model

from ..fork_server import fork
from ..helpers import NANO, TINY_CLASSIFIER, config_path, metrics, save_untrained
from ..in_process import run_main

MASK_RCNN, UPERNET, CLASSIFIER = NANO.values()
CASCADE = 'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes'

MEAN = torch.tensor([123.675, 116.28, 103.53])[:, None, None]
STD = torch.tensor([58.395, 57.12, 57.375])[:, None, None]


@pytest.fixture
def run(workspace: Path) -> Callable[..., dict[str, float]]:
    """Run ``test.py --tta`` with the untrained checkpoint of the workspace; returns its metrics."""

    def run(config: Path, *args: object) -> dict[str, float]:
        return metrics(
            fork('test.py', config, 'untrained.pth', '--tta', '--work-dir', 'run', *args, cwd=workspace).stdout
        )

    return run


def read(path: Path) -> Tensor:
    """Read an image as the models do, (1, 3, H, W)."""
    return normalize(cv2.imread(str(path)))


def normalize(image: np.ndarray) -> Tensor:
    return ((torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1) - MEAN) / STD)[None]


@pytest.mark.long
def test_masks_are_on_the_original_images_and_evaluated(workspace, run):
    save_untrained(CASCADE, workspace / 'untrained.pth')  # detects something everywhere
    found = run(config_path(CASCADE), '--out', 'predictions.pkl', '--show-dir', workspace / 'painted')
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(found)
    # Written by the command above, so that unpickling is safe.
    predictions = pickle.loads((workspace / 'predictions.pkl').read_bytes())
    assert len(predictions) == 6
    for prediction in predictions:
        objects = prediction['pred_instances']
        assert len(objects['masks']) == len(objects['bboxes']) == 20
        assert {tuple(mask['size']) for mask in objects['masks']} == {tuple(prediction['ori_shape'])}
        assert rle.area(objects['masks']).max() > 0
        height, width = prediction['ori_shape']
        assert (objects['bboxes'] >= 0).all() and (objects['bboxes'] <= torch.tensor([width, height] * 2) + 1e-3).all()
    assert len(list((workspace / 'painted').rglob('*.jpg'))) == 6


def label_probabilities(model: nn.Module, image: np.ndarray, side: int, flip: bool) -> Tensor:
    """Predict every pixel (classes, H, W) from the image resized to ``side`` and, with ``flip``, flipped."""
    view = normalize(cv2.resize(image, (side, side)))
    logits = model.decode_head(model.backbone(view.flip(-1) if flip else view))
    logits = F.interpolate(logits, view.shape[-2:], mode='bilinear')
    logits = F.interpolate(logits.flip(-1) if flip else logits, image.shape[:2], mode='bilinear')
    return logits.softmax(1)[0]


@pytest.mark.long
@torch.no_grad()
def test_a_segmentor_averages_every_scale_flipped_and_not(workspace, run):
    """Compare the pipeline of the config with the same views made by hand."""
    model = save_untrained(UPERNET, workspace / 'untrained.pth')
    found = run(config_path(UPERNET), '--out', 'labels')
    assert {'aAcc', 'mIoU'} <= set(found)
    files = sorted((workspace / 'data' / 'scenes' / 'ade20k' / 'images' / 'validation').iterdir())
    assert len(files) == 6
    right = plain = total = 0
    for file in files:
        image = cv2.imread(str(file))
        views = {(s, f): label_probabilities(model, image, s, f) for s in (160, 192, 224) for f in (False, True)}
        labels = torch.from_numpy(cv2.imread(str(workspace / 'labels' / f'{file.stem}.png'), cv2.IMREAD_UNCHANGED))
        right += (sum(views.values()).argmax(0) == labels).sum().item()
        plain += (views[192, False].argmax(0) == labels).sum().item()
        total += labels.numel()
    assert right > 0.9999 * total  # except for ties
    assert plain < 0.99 * total  # the view without augmentation differs


@pytest.mark.parametrize('pipeline', ['own', 'tta_pipeline'])
def test_each_part_of_a_concatenated_data_set_is_augmented(pipeline, workspace):
    cfg = Config.fromfile(TINY_CLASSIFIER)
    torch.manual_seed(0)
    torch.save(dict(state_dict=build_model(cfg).state_dict()), workspace / 'untrained.pth')
    data = cfg.test_dataloader.dataset
    if pipeline == 'tta_pipeline':
        flips = [dict(type='RandomFlip', prob=float(flip)) for flip in (False, True)]
        views = dict(type='TestTimeAug', transforms=[flips, [data.pipeline[-1]]])
        cfg.tta_pipeline, cfg.tta_model = [*data.pipeline[:-1], views], dict(type='AverageClsScoreTTA')
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    found = {}
    for name in ('whole', 'parts'):
        if name == 'parts':
            parts = [dict(copy.deepcopy(data), indices=indices) for indices in ([0, 1], [2, 3, 4])]
            cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
        cfg.dump(workspace / f'{name}.py')
        args = ['untrained.pth', '--tta', '--work-dir', 'run', '--out', f'{name}.pkl']
        run_main('test.py', f'{name}.py', *args, cwd=workspace)
        found[name] = pickle.loads((workspace / f'{name}.pkl').read_bytes())
    assert len(found['whole']) > len(found['parts']) == 5
    for whole, part in zip(found['whole'][:5], found['parts'], strict=True):
        assert whole['img_path'] == part['img_path'] and torch.equal(whole['pred_score'], part['pred_score'])
