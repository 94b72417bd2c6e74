"""Pictures of predictions: one for each image, in the same place for the three libraries."""

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, VISUALIZERS, DefaultScope
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmstvit.engine.runner.draw import DrawHook
from mmstvit.errors import UserError

from ...test_datasets.tiny_data import images, make_config

VISUALIZERS_OF = {'mmdet': 'DetLocalVisualizer', 'mmseg': 'SegLocalVisualizer', 'mmpretrain': 'UniversalVisualizer'}


def predict(library: str, sample: BaseDataElement) -> BaseDataElement:
    """Add what a model would predict to the sample of a dataset."""
    if library == 'mmpretrain':
        return sample.set_pred_label(0).set_pred_score(torch.tensor([0.75, 0.25]))
    if library == 'mmseg':
        sample.pred_sem_seg = PixelData(data=torch.zeros(1, *sample.ori_shape, dtype=torch.long))
    else:
        boxes, masks = torch.tensor([[2.0, 2.0, 9.0, 9.0]]), torch.zeros(1, *sample.ori_shape, dtype=torch.bool)
        sample.pred_instances = InstanceData(
            bboxes=boxes, labels=torch.tensor([0]), scores=torch.tensor([0.9]), masks=masks
        )
    return sample


@pytest.mark.parametrize('library', VISUALIZERS_OF)
def test_every_image_has_a_picture_with_its_own_path(tmp_path, monkeypatch, library):
    """Two folders with images of the same names, the data given by a relative path."""
    monkeypatch.chdir(tmp_path)
    cfg = make_config(library, Path('data'))
    both = {'type': 'ConcatDataset', 'datasets': [cfg.train_dataloader.dataset, cfg.val_dataloader.dataset]}
    cfg.test_dataloader = {'dataset': both}
    cfg.visualizer = {'type': VISUALIZERS_OF[library]}
    hook = DrawHook(cfg, 'out', show=False, wait_time=0)
    with DefaultScope.overwrite_default_scope(library):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
        visualizer = VISUALIZERS.build({**cfg.visualizer, 'name': tmp_path.name})
    visualizer.dataset_meta = {**dataset.metainfo, 'palette': [(255, 0, 0), (0, 255, 0)]}
    messages = []
    runner = SimpleNamespace(visualizer=visualizer, logger=SimpleNamespace(info=messages.append))
    for index in range(len(dataset)):
        hook.after_test_iter(runner, index, None, [predict(library, dataset[index]['data_samples'])])
    hook.after_test(runner)
    expected = [path.relative_to('data') for split in ('train', 'val') for path in images(library, Path('data'), split)]
    assert len(expected) == 8
    assert sorted(path.relative_to('out') for path in Path('out').rglob('*.*')) == sorted(expected)
    picture, photo = (cv2.imread(str(Path(folder) / expected[0])).astype(int) for folder in ('out', 'data'))
    assert picture.shape == (photo.shape[0], 2 * photo.shape[1], 3)
    for part in np.split(picture, 2, 1):  # ground truth and prediction
        assert (abs(part - photo) > 60).any(), 'nothing is drawn'
    assert '8' in messages[0] and 'out' in messages[0]


def test_images_elsewhere_keep_their_whole_path(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    cfg.test_dataloader = cfg.val_dataloader
    hook = DrawHook(cfg, 'out', show=False, wait_time=0)
    assert hook.relative_path(f'{tmp_path}/val/0.jpg') == Path('val/0.jpg')
    assert hook.relative_path('/elsewhere/val/0.jpg') == Path('elsewhere/val/0.jpg')


def test_a_window_shows_the_picture_and_no_file_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = make_config('mmpretrain', Path('data'))
    cfg.test_dataloader = cfg.val_dataloader
    hook = DrawHook(cfg, None, show=True, wait_time=3)
    shown = []
    visualizer = SimpleNamespace(dataset_meta={'classes': ('a', 'b')}, show=lambda *args: shown.append(args))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        sample = DATASETS.build(cfg.test_dataloader.dataset)[0]['data_samples']
    hook.after_test_iter(SimpleNamespace(visualizer=visualizer), 0, None, [predict('mmpretrain', sample)])
    ((picture, name, seconds),) = shown
    assert picture.dtype == np.uint8 and name == sample.img_path and seconds == 3
    assert not Path('out').exists()


def test_scores_that_are_too_low_are_not_drawn(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    cfg.test_dataloader = cfg.val_dataloader
    assert DrawHook(cfg, 'out', show=False, wait_time=0).score == 0.3
    cfg.default_hooks = {'visualization': {'type': 'DetVisualizationHook', 'score_thr': 0.7}}
    assert DrawHook(cfg, 'out', show=False, wait_time=0).score == 0.7


def test_a_prediction_of_another_kind_is_refused(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    cfg.test_dataloader = cfg.val_dataloader
    sample = BaseDataElement(metainfo={'img_path': str(images('mmdet', tmp_path, 'val')[0])}, depth=torch.zeros(3))
    with pytest.raises(UserError, match='depth'):
        DrawHook(cfg, 'out', show=False, wait_time=0).draw(sample, {})
