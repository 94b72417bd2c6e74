"""Data samples of the three libraries: what is read from them, and drawn."""

import numpy as np
import pytest
import torch
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from mmstvit.drawing import class_colors, draw_sample, read_objects

NAMES = ['background', 'cat', 'dog']
COLORS = class_colors(NAMES)
GRAY = np.full((90, 120, 3), 128, np.uint8)
BOX = [20.0, 30.0, 80.0, 80.0]


def instances(**fields: object) -> InstanceData:
    fields = dict(bboxes=torch.tensor([BOX, [0, 0, 50, 25]]), labels=torch.tensor([1, 2])) | fields
    return InstanceData(**fields)


def painted(picture: np.ndarray) -> set[int]:
    """Return the classes whose colors are in a picture."""
    return {i for i, color in enumerate(COLORS) if (picture == color).all(-1).any()} - {0}


def draw(kind: str = 'pred', image: np.ndarray = GRAY, **fields: object) -> np.ndarray | None:
    options = {key: fields.pop(key) for key in ('score', 'scale') if key in fields}
    return draw_sample(image, BaseDataElement(**fields), NAMES, COLORS, kind, **options)


def test_predicted_objects_of_at_least_a_score():
    scores = torch.tensor([0.9, 0.4])
    drawn = draw(pred_instances=instances(scores=scores), score=0.5)
    assert painted(drawn) == {1} and (drawn[40:75, 30:70] == 128).all(), 'no mask'
    assert painted(draw(pred_instances=instances(scores=scores), score=0.4)) == {1, 2}
    found = read_objects(instances(scores=scores), 0.5)
    assert found.boxes.tolist() == [BOX] and found.labels == [1] and found.scores == pytest.approx([0.9])


@pytest.mark.parametrize('kind', ['bitmap', 'polygon', 'tensor'])
def test_masks_of_the_truth_and_boxes_of_a_dataset(kind):
    raster = np.zeros((2, 90, 120), np.uint8)
    raster[0, 40:70, 30:60] = 1
    corners = [np.array([30.0, 40, 30, 70, 60, 70, 60, 40]), np.array([1.0, 1, 1, 2, 2, 2])]
    masks = {
        'bitmap': lambda: BitmapMasks(raster, 90, 120),
        'polygon': lambda: PolygonMasks([[one] for one in corners], 90, 120),
        'tensor': lambda: torch.tensor(raster, dtype=torch.bool),
    }[kind]()
    truth = instances(bboxes=HorizontalBoxes(torch.tensor([BOX, [0, 0, 2, 2]])), masks=masks)
    drawn = draw('gt', gt_instances=truth)
    np.testing.assert_allclose(drawn[55, 45], (np.array(COLORS[1]) + 128) / 2, atol=1)
    assert draw(gt_instances=truth) is None


def test_boxes_and_masks_are_drawn_on_an_image_of_another_size():
    masks = torch.zeros(2, 90, 120, dtype=torch.bool)
    masks[0, 30:80, 20:80] = True
    fields = dict(pred_instances=instances(scores=torch.tensor([0.9, 0.1]), masks=masks), score=0.5)
    large = draw(image=GRAY.repeat(2, 0).repeat(2, 1), scale=2, **fields)
    assert (large[156:164, 100] == COLORS[1]).all(-1).any() and (large[100, 36:44] == COLORS[1]).all(-1).any()
    assert (large[100, 100] != 128).any() and (large[170, 100] == 128).all()


def test_small_objects_are_on_top_of_large_ones():
    found = instances(bboxes=torch.tensor([[40.0, 40, 60, 60], [20, 20, 100, 60]]), scores=torch.tensor([0.2, 0.9]))
    drawn = draw(pred_instances=found)
    assert (drawn[60, 50] == COLORS[1]).all() and (drawn[60, 80] == COLORS[2]).all()


@pytest.mark.parametrize('field', ['data', 'sem_seg'])
def test_maps_of_both_libraries(field):
    labels = torch.zeros(1, 90, 120, dtype=torch.long)
    labels[0, :, 60:], labels[0, :, 110:] = 1, 255
    drawn = draw(pred_sem_seg=PixelData(**{field: labels}))
    assert painted(drawn) == {1} and (drawn[:, :55] == 128).all() and (drawn[:, 112:] == 128).all()


def test_panoptic_maps_show_where_objects_of_a_class_meet():
    labels = torch.full((1, 90, 120), 3)  # no class
    labels[0, 40:, :60], labels[0, 40:, 60:] = 1 + 1000, 1 + 2000
    drawn = draw(pred_panoptic_seg=PixelData(sem_seg=labels))
    inside, border = drawn[80, 20].astype(int), drawn[80, 58:63].astype(int)
    np.testing.assert_allclose(inside, (np.array(COLORS[1]) + 128) / 2, atol=1)
    assert (border.sum(-1) > inside.sum() + 100).any() and (drawn[20] == 128).all()


def test_classes_of_an_image_are_listed():
    drawn = draw(pred_score=torch.tensor([0.1, 0.2, 0.7]), score=0.15)
    rows = np.flatnonzero((drawn != 128).any((1, 2)))
    one = np.flatnonzero((draw('gt', gt_label=torch.tensor([1])) != 128).any((1, 2)))
    assert len(rows) == 2 * len(one)
    assert (draw(pred_score=torch.tensor([0.1, 0.2, 0.7]), score=0.8) == 128).all()
    tiny = draw(image=GRAY[:8, :8], pred_score=torch.tensor([0.1, 0.2, 0.7]))
    assert tiny.shape == (8, 8, 3) and (tiny != 128).any(), 'the text is cut off'


def test_a_sample_without_a_prediction():
    assert draw() is None and draw('gt') is None


def test_a_pipeline_that_loads_no_annotations_leaves_no_truth():
    """MMDetection then packs an empty InstanceData."""
    assert draw('gt', gt_instances=InstanceData()) is None
