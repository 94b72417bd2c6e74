"""``tools/dataset_converters/scenes.py``: the layouts that it writes, and the folders that it leaves alone."""

import functools
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from ..helpers import load_tool

SPLITS = {'train': 16, 'val': 6}
ADE20K = {'train': 'training', 'val': 'validation'}


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope='module')
def module():
    """The tool as a module."""
    return load_tool('dataset_converters/scenes.py')


@pytest.fixture
def main(call):
    return functools.partial(call, 'dataset_converters/scenes.py')


def load(scenes: Path, split: str) -> COCO:
    return COCO(scenes / 'coco' / 'annotations' / f'instances_{split}.json')


@pytest.mark.parametrize('split', SPLITS)
def test_layouts(scenes, split):
    """COCO's masks lie inside images that exist and do not overlap; ADE20K has their union, ImageNet a crop of each."""
    coco = load(scenes, split)
    assert len(coco.imgs) == SPLITS[split]
    for image in coco.imgs.values():
        path = scenes / 'coco' / split / image['file_name']
        assert cv2.imread(str(path)).shape == (image['height'], image['width'], 3)
        annotations = coco.imgToAnns[image['id']]
        assert annotations
        labels = np.zeros((image['height'], image['width']), np.uint8)
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.shape == labels.shape and mask.sum() == annotation['area'] > 0
            assert annotation['bbox'] == rle.toBbox(annotation['segmentation']).tolist()
            assert not labels[mask].any()
            labels[mask] = annotation['category_id']
        seg_map = scenes / 'ade20k' / 'annotations' / ADE20K[split] / f'{path.stem}.png'
        np.testing.assert_array_equal(cv2.imread(str(seg_map), cv2.IMREAD_UNCHANGED), labels)
        photo = scenes / 'ade20k' / 'images' / ADE20K[split] / f'{path.stem}.jpg'
        assert photo.read_bytes() == path.read_bytes()
    for category in coco.cats.values():
        crops = list((scenes / 'imagenet' / split / category['name']).glob('*.jpg'))
        assert len(crops) == len(coco.getAnnIds(catIds=[category['id']]))
        assert all(cv2.imread(str(crop)).shape == (64, 64, 3) for crop in crops)


def test_masks_cover_the_painted_pixels(module):
    options = module.SceneOptions(train=1, val=1, size=128, max_objects=1, seed=0)
    black = [np.zeros((200, 200, 3), np.uint8)]
    digits = module.load_digits()
    for seed in range(12):
        image, objects = module.draw_scene(np.random.default_rng(seed), black, digits, options)
        ((_, mask),) = objects
        painted = image.max(axis=2)
        assert (painted[mask] > 0).all()
        # The soft edge outside the mask is one pixel wide.
        near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        assert (painted[~near] == 0).all()


def test_splits_share_no_photograph_and_no_digit(module):
    assert not set(module.PHOTOS['train']) & set(module.PHOTOS['val'])
    images = module.load_digits()
    assert images.shape == (1797, 8, 8) and images.sum() == 561718  # as in sklearn.datasets.load_digits
    digits = range(len(images))
    assert not set(digits[module.DIGITS['train']]) & set(digits[module.DIGITS['val']])


def test_output_depends_on_the_arguments_only(scenes, main, tmp_path):
    """More scenes begin with the same ones."""
    for name, *args in (('again', '--train', 16), ('more', '--train', 18), ('other', '--train', 1, '--seed', 1)):
        code, _, error = main('--out-dir', tmp_path / name, '--val', 6, *args)
        assert code == 0, error
    fewer, more = digest(scenes), digest(tmp_path / 'more')
    assert digest(tmp_path / 'again') == fewer
    images = [name for name in fewer if name.endswith(('.jpg', '.png'))]
    assert images and all(more[name] == fewer[name] for name in images)
    first = 'coco/train/000001.jpg'
    assert digest(tmp_path / 'other')[first] != fewer[first]


def test_second_call_does_nothing(scenes, main):
    before = {p: p.stat().st_mtime_ns for p in scenes.rglob('*')}
    code, out, _ = main('--out-dir', scenes, '--train', 16, '--val', 6)
    assert code == 0 and 'already there' in out
    assert {p: p.stat().st_mtime_ns for p in scenes.rglob('*')} == before


def test_other_scenes_are_replaced_with_force_only(main, tmp_path):
    folder = tmp_path / 'scenes'
    assert main('--out-dir', folder, '--train', 2, '--val', 1)[0] == 0
    before = digest(folder)
    code, _, error = main('--out-dir', folder, '--train', 3, '--val', 1)
    assert code == 2 and '--force' in error
    assert digest(folder) == before
    assert main('--out-dir', folder, '--train', 3, '--val', 1, '--force')[0] == 0
    assert json.loads((folder / 'scenes.json').read_text())['train'] == 3
    assert [p.name for p in tmp_path.iterdir()] == ['scenes']


@pytest.mark.parametrize(('option', 'value'), [('--train', 0), ('--val', -1), ('--max-objects', 0), ('--size', 1000)])
def test_invalid_number(main, tmp_path, option, value):
    code, _, error = main('--out-dir', tmp_path / 'scenes', option, value)
    assert code == 2 and option in error and str(value) in error
    assert not (tmp_path / 'scenes').exists()
