"""``tools/dataset_converters/scenes.py``: what it writes, and that it never destroys anything."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO

from ..helpers import load_tool

TOOL = 'dataset_converters/scenes.py'
SPLITS = {'train': 16, 'val': 6}
ADE20K = {'train': 'training', 'val': 'validation'}


def digest(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def load(scenes: Path, split: str) -> COCO:
    return COCO(scenes / 'coco' / 'annotations' / f'instances_{split}.json')


@pytest.mark.parametrize('split', SPLITS)
def test_coco_layout_names_images_that_exist_and_masks_inside_them(scenes, split):
    coco = load(scenes, split)
    assert len(coco.imgs) == SPLITS[split]
    for image in coco.imgs.values():
        pixels = cv2.imread(str(scenes / 'coco' / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3)
        annotations = coco.imgToAnns[image['id']]
        assert annotations
        for annotation in annotations:
            mask = coco.annToMask(annotation)
            assert mask.shape == pixels.shape[:2]
            assert mask.sum() == annotation['area'] > 0
            assert annotation['bbox'] == rle.toBbox(annotation['segmentation']).tolist()


@pytest.mark.parametrize('split', SPLITS)
def test_instances_do_not_overlap_and_ade20k_labels_are_their_union(scenes, split):
    coco = load(scenes, split)
    for image in coco.imgs.values():
        expected = np.zeros((image['height'], image['width']), np.uint8)
        for annotation in coco.imgToAnns[image['id']]:
            mask = coco.annToMask(annotation).astype(bool)
            assert not expected[mask].any()
            expected[mask] = annotation['category_id']
        stem = Path(image['file_name']).stem
        label_file = scenes / 'ade20k' / 'annotations' / ADE20K[split] / f'{stem}.png'
        np.testing.assert_array_equal(cv2.imread(str(label_file), cv2.IMREAD_UNCHANGED), expected)
        photo = scenes / 'ade20k' / 'images' / ADE20K[split] / f'{stem}.jpg'
        assert photo.read_bytes() == (scenes / 'coco' / split / image['file_name']).read_bytes()


@pytest.mark.parametrize('split', SPLITS)
def test_imagenet_layout_has_one_crop_per_object_in_its_class_folder(scenes, split):
    coco = load(scenes, split)
    for category in coco.cats.values():
        crops = list((scenes / 'imagenet' / split / category['name']).glob('*.jpg'))
        assert len(crops) == len(coco.getAnnIds(catIds=[category['id']]))
        assert all(cv2.imread(str(crop)).shape == (64, 64, 3) for crop in crops)


@pytest.fixture(scope='module')
def module():
    """The tool as a module."""
    return load_tool(TOOL)


def test_masks_lie_on_the_painted_pixels(module):
    recipe = module.Recipe(train=1, val=1, size=128, max_objects=1, seed=0)
    black = [np.zeros((200, 200, 3), np.uint8)]
    digits = module.load_digits().images
    for seed in range(12):
        image, objects = module.draw_scene(np.random.default_rng(seed), black, digits, recipe)
        ((_, mask),) = objects
        painted = image.max(axis=2)
        assert (painted[mask] > 0).all()
        # Outside the mask only the soft edge is painted, one pixel wide.
        near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        assert (painted[~near] == 0).all()


def test_same_arguments_give_the_same_bytes_and_another_seed_others(scenes, tool, tmp_path):
    again, other = tmp_path / 'again', tmp_path / 'other'
    for folder, seed in ((again, 0), (other, 1)):
        done = tool(TOOL, '--out-dir', folder, '--train', 16, '--val', 6, '--seed', seed)
        assert done.returncode == 0, done.stderr
    assert digest(again) == digest(scenes)
    first = 'coco/train/000001.jpg'
    assert digest(other)[first] != digest(scenes)[first]


def test_more_scenes_begin_with_the_same_ones(scenes, tool, tmp_path):
    assert tool(TOOL, '--out-dir', tmp_path / 'more', '--train', 18, '--val', 6).returncode == 0
    more, fewer = digest(tmp_path / 'more'), digest(scenes)
    images = [name for name in fewer if name.endswith(('.jpg', '.png'))]
    assert images and all(more[name] == fewer[name] for name in images)


def test_validation_has_other_photographs_and_other_digits(module):
    assert not set(module.PHOTOS['train']) & set(module.PHOTOS['val'])
    digits = range(len(module.load_digits().images))
    assert not set(digits[module.DIGITS['train']]) & set(digits[module.DIGITS['val']])


def test_a_second_call_does_nothing(scenes, tool):
    before = {p: p.stat().st_mtime_ns for p in scenes.rglob('*')}
    done = tool(TOOL, '--out-dir', scenes, '--train', 16, '--val', 6)
    assert done.returncode == 0 and 'already there' in done.stdout
    assert {p: p.stat().st_mtime_ns for p in scenes.rglob('*')} == before


def test_scenes_of_other_arguments_are_replaced_only_when_asked(tool, tmp_path):
    folder = tmp_path / 'scenes'
    assert tool(TOOL, '--out-dir', folder, '--train', 2, '--val', 1).returncode == 0
    before = digest(folder)
    refused = tool(TOOL, '--out-dir', folder, '--train', 3, '--val', 1)
    assert refused.returncode == 2 and '--force' in refused.stderr
    assert digest(folder) == before
    assert tool(TOOL, '--out-dir', folder, '--train', 3, '--val', 1, '--force').returncode == 0
    assert json.loads((folder / 'scenes.json').read_text())['train'] == 3
    assert [p.name for p in tmp_path.iterdir()] == ['scenes']


def test_a_folder_of_somebody_else_is_left_alone(tool, tmp_path):
    (tmp_path / 'precious.txt').write_text('mine')
    done = tool(TOOL, '--out-dir', tmp_path, '--force')
    assert done.returncode == 2 and 'was not made by this tool' in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ['precious.txt']


@pytest.mark.parametrize(('option', 'value'), [('--train', 0), ('--val', -1), ('--max-objects', 0), ('--size', 1000)])
def test_bad_numbers_are_refused_by_name(tool, tmp_path, option, value):
    done = tool(TOOL, '--out-dir', tmp_path / 'scenes', option, value)
    assert done.returncode == 2
    assert option in done.stderr and str(value) in done.stderr
    assert not (tmp_path / 'scenes').exists()
