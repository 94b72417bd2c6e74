"""Datasets that cannot be built, are empty, or have nothing to learn from."""

import json

import pytest
from mmengine.config import Config, ConfigDict

from mmstvit.rules import Finding, check

from ..test_datasets.tiny_data import LIBRARIES, coco_content, draw, images, make_config, write
from .coco_defects import each

# What to plant, and the reason that is counted.
UNUSABLE = [
    (lambda c: c['annotations'].clear(), 'has 4 images and no annotation'),
    (each('annotations', iscrowd=1), '4 crowd'),
    (each('annotations', bbox=[4, 5, 0, 6]), '4 box below 1 pixel'),
    (each('annotations', ignore=1), '4 ignore=1'),
]


def refused(cfg: Config) -> Finding:
    """Return the only fault of the training data."""
    (fault,) = check(cfg, ('train',)).faults
    assert fault.kind == 'unusable dataset' and 'train_dataloader.dataset' in fault.line and fault.remedy
    return fault


@pytest.mark.parametrize('filtering', [True, False])
@pytest.mark.parametrize(('plant', 'reason'), UNUSABLE)
def test_coco_file_without_usable_objects(plant, reason, filtering, tmp_path):
    """With the dataset's own filtering, which leaves no image of some, and without; one object is enough."""
    cfg = make_config('mmdet', tmp_path)
    cfg.train_dataloader.dataset.filter_cfg = dict(filter_empty_gt=filtering)
    content = coco_content()
    plant(content)
    (tmp_path / 'train.json').write_text(json.dumps(content))
    assert reason in refused(cfg).message
    content['annotations'] = [*content['annotations'][:-1], coco_content()['annotations'][-1]]
    (tmp_path / 'train.json').write_text(json.dumps(content))
    assert 'unusable dataset' not in {finding.kind for finding in check(cfg, ('train',)).findings}


@pytest.mark.parametrize('serialize', [True, False])
@pytest.mark.parametrize('library', LIBRARIES)
def test_empty_folder_inside_a_wrapper(library, serialize, tmp_path):
    """MMEngine fails on an empty list of samples if it serializes it."""
    cfg = make_config(library, tmp_path)
    cfg.train_dataloader.dataset.serialize_data = serialize
    for path in images(library, tmp_path, 'train'):
        path.unlink()
    if library == 'mmdet':  # the annotation file lists the images
        (tmp_path / 'train.json').write_text(json.dumps({**coco_content(), 'images': [], 'annotations': []}))
    cfg.train_dataloader.dataset = ConfigDict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
    reasons = {'mmdet': 'has 0 images', 'mmseg': 'images/train has no image', 'mmpretrain': 'Found 0 files'}
    assert reasons[library] in refused(cfg).message


def test_empty_list_of_files(tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    (tmp_path / 'list.txt').touch()
    cfg.train_dataloader.dataset.update(ann_file='list.txt', serialize_data=True)
    fault = refused(cfg)
    assert 'list.txt lists no files' in fault.message and 'ann_file' in fault.remedy


@pytest.mark.parametrize(('value', 'reduced'), [(255, False), (0, True)])
def test_segmentation_maps_without_labels(value, reduced, tmp_path):
    cfg = make_config('mmseg', tmp_path)
    cfg.train_dataloader.dataset.reduce_zero_label = reduced
    for path in (tmp_path / 'maps' / 'train').iterdir():
        write(path, draw(0, 24, 32) * 0 + value)
    fault = refused(cfg)
    assert 'none occurs in 4 maps' in fault.message and 'reduce_zero_label' in fault.remedy


@pytest.mark.parametrize('library', LIBRARIES)
def test_dataset_that_cannot_be_built(library, tmp_path):
    cfg = make_config(library, tmp_path)
    cfg.train_dataloader.dataset.max_refetc = 3
    assert 'cannot be built: TypeError: ' in (message := refused(cfg).message) and 'max_refetc' in message
