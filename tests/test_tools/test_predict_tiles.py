"""``tools/predict.py --tile``: objects at the borders of tiles, and MMSegmentation's slide mode."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from pycocotools.coco import COCO

from mmstvit.apis import UserError, predict
from mmstvit.apis.predict.tiles import PlacedMask, merge_tiles

from ..in_process import run_main
from ..nano import make_config
from ..test_datasets.tiny_data import draw, write

pytestmark = pytest.mark.usefixtures('in_folder')
SCORE = 0.1  # of an untrained detector
# Of an image of 300 × 200 pixels: tiles of 100, of which neighbors share 20.
SIZE = 300, 200
TILES = [(x, y, x + 100, y + 100) for y in (0, 80, 100) for x in (0, 80, 160, 200)]


def detect(objects: list[tuple[int, ...]], labels: list[int]) -> tuple[InstanceData, np.ndarray]:
    """Return what a perfect detector finds in every tile, with scores that differ."""
    boxes, kinds, masks, places = [], [], [], []
    for tile in TILES:
        for (x1, y1, x2, y2), label in zip(objects, labels, strict=True):
            x1, y1, x2, y2 = max(x1, tile[0]), max(y1, tile[1]), min(x2, tile[2]), min(y2, tile[3])
            if x2 - x1 >= 6 and y2 - y1 >= 6:  # less of an object is not recognized
                boxes.append([x1, y1, x2, y2])
                kinds.append(label)
                masks.append(PlacedMask(np.ones((y2 - y1, x2 - x1), bool), (x1, y1), SIZE[::-1]))
                places.append(tile)
    scores = torch.rand(len(boxes), generator=torch.Generator().manual_seed(len(boxes)))
    found = InstanceData(bboxes=torch.tensor(boxes).float().reshape(-1, 4), labels=torch.tensor(kinds), scores=scores)
    found.masks = masks
    return found, np.array(places).reshape(-1, 4)


@pytest.mark.parametrize(
    'objects',
    [
        [(10, 10, 30, 30)],  # in one tile
        [(85, 40, 97, 60)],  # whole in two tiles
        [(60, 40, 95, 60)],  # whole in one, cut in the other
        [(20, 20, 280, 60)],  # larger than tiles
        [(20, 20, 280, 180)],
        [(40, 85, 70, 97), (60, 30, 260, 50), (120, 60, 240, 180)],
        [(80, 20, 90, 40), (90, 20, 100, 40)],  # neighbors
        [(50, 20, 90, 60), (90, 20, 150, 60)],
        [],
    ],
)
def test_every_object_is_there_once_and_whole(objects):
    found, tiles = detect(objects, [0] * len(objects))
    merged = merge_tiles(found, tiles, SIZE, 2)
    assert sorted(map(tuple, merged.bboxes.int().tolist())) == sorted(objects)
    for box, mask in zip(merged.bboxes.int().tolist(), merged.get('masks', []), strict=True):
        expected = np.zeros(SIZE[::-1], bool)
        expected[box[1] : box[3], box[0] : box[2]] = True
        np.testing.assert_array_equal(np.asarray(mask), expected)


def test_objects_of_other_classes_and_of_one_tile_are_not_merged():
    place = (60, 40, 95, 60)
    found, tiles = detect([place, place], [0, 1])
    assert sorted(merge_tiles(found, tiles, SIZE, 2).labels.tolist()) == [0, 1]
    one, tiles = detect([(10, 10, 30, 30), (12, 10, 32, 30)], [0, 0])
    assert len(merge_tiles(one, tiles, SIZE, 2)) == 2


def test_one_tile_gives_the_objects_of_the_image(checkpoints, in_folder):
    for i, size in enumerate([(64, 64), (40, 56)]):
        write(in_folder / f'in/{i}.png', draw(i, *size, 3))
    predict(checkpoints['mmdet'], ['in'], 'whole', score=SCORE)
    predict(checkpoints['mmdet'], ['in'], 'tiles', score=SCORE, tile=64)
    whole, tiles = (json.loads(Path(name, 'predictions.json').read_text()) for name in ('whole', 'tiles'))
    assert whole['images'] == tiles['images']
    strip = [sorted((dict(a, id=0) for a in part['annotations']), key=str) for part in (whole, tiles)]
    assert strip[0] == strip[1] != []


def test_tiles_give_boxes_and_masks_of_the_image(checkpoints, in_folder):
    write(in_folder / 'a.png', draw(0, 100, 150, 3))
    for size in (1, 4):
        arguments = ('--tile', 64, '--overlap', 20, '--score', SCORE, '--batch-size', size, '--out-dir', f'out{size}')
        run_main('predict.py', checkpoints['mmdet'], 'a.png', *arguments, cwd=in_folder)
    coco = COCO('out1/predictions.json')
    boxes = np.array([entry['bbox'] for entry in coco.anns.values()])
    assert boxes[:, 0].max() > 64
    assert (boxes[:, :2] + boxes[:, 2:]).max(0).tolist() <= [150.1, 100.1]
    assert any(mask[:, 64:].any() for mask in map(coco.annToMask, coco.anns.values()))
    assert {coco.annToMask(entry).shape for entry in coco.anns.values()} == {(100, 150)}
    assert len(COCO('out4/predictions.json').anns) == len(coco.anns)
    assert cv2.imread('out1/pictures/a.jpg').shape == (100, 150, 3)


def test_a_segmentor_slides_over_the_image(checkpoints, in_folder):
    """A tile of 32 pixels is resized to 64 by the pipeline: so the image is doubled."""
    write(in_folder / 'a.png', draw(0, 80, 96, 3))
    predict(checkpoints['mmseg'], ['a.png'], 'tiles', tile=32, overlap=8)
    slide = {'mode': 'slide', 'crop_size': (64, 64), 'stride': (48, 48)}
    options = {f'model.test_cfg.{key}': value for key, value in slide.items()}
    options['test_dataloader.dataset.pipeline.1.scale'] = (192, 160)
    predict(checkpoints['mmseg'], ['a.png'], 'slide', cfg_options=options)
    predict(checkpoints['mmseg'], ['a.png'], 'whole')
    tiles, slide, whole = (cv2.imread(f'{name}/maps/a.png') for name in ('tiles', 'slide', 'whole'))
    np.testing.assert_array_equal(tiles, slide)
    assert (tiles != whole).any()


def test_what_cannot_be_predicted_in_tiles_is_refused(checkpoints, in_folder):
    write(in_folder / 'a.png', draw(0))
    steps = make_config('mmseg').test_dataloader.dataset.pipeline
    steps[1] = dict(type='mmseg.ResizeShortestEdge', scale=64, max_size=64)
    for library, options, message in (
        ('mmpretrain', dict(tile=64), 'classifier'),
        ('mmdet', dict(tile=64, overlap=64), 'less than --tile'),
        ('mmdet', dict(overlap=8), 'Give --tile'),
        ('mmseg', dict(tile=64, cfg_options={'test_dataloader.dataset.pipeline': steps}), 'Resize alone'),
    ):
        with pytest.raises(UserError, match=message):
            predict(checkpoints[library], ['a.png'], 'out', **options)
    assert not Path('out').exists()
