"""Files and folders that a config names: missing ones are refused with their key, existing ones are not."""

import os

import pytest
from mmengine.config import Config

from mmstvit.errors import UserError
from mmstvit.rules import check_data


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A working folder with the files and folders of three data sets."""
    monkeypatch.chdir(tmp_path)
    for folder in ('data/coco/train', 'data/ade/images', 'data/ade/labels', 'data/imagenet/train/cat'):
        os.makedirs(folder)
    for file in ('data/coco/ann.json', 'data/imagenet/train.txt'):
        open(file, 'w').close()
    return tmp_path


def config(dataset: dict, which: str = 'train') -> Config:
    return Config({f'{which}_dataloader': {'dataset': dataset}})


COCO = {'type': 'CocoDataset', 'data_root': 'data/coco/', 'ann_file': 'ann.json', 'data_prefix': {'img': 'train/'}}
ADE = {
    'type': 'ADE20KDataset',
    'data_root': 'data/ade',
    'data_prefix': {'img_path': 'images', 'seg_map_path': 'labels'},
}
IMAGENET = {'type': 'ImageNet', 'data_root': 'data/imagenet', 'split': 'train'}
WRAPPED = {'type': 'RepeatDataset', 'times': 2, 'dataset': COCO}
CONCATENATED = {'type': 'ConcatDataset', 'datasets': [COCO, ADE]}


@pytest.mark.parametrize(
    'dataset',
    [
        IMAGENET,
        WRAPPED,
        CONCATENATED,
        {**COCO, 'ann_file': ['ann.json', 'ann.json']},
        {'type': 'CIFAR10', 'data_root': 'data/imagenet', 'split': 'test'},
        {**COCO, 'data_root': 's3://bucket/coco'},
        {**COCO, 'data_root': 'elsewhere', 'backend_args': {'backend': 'petrel'}},
    ],
)
def test_data_that_exist_or_are_not_local_pass(data, dataset):
    check_data(config(dataset), 'train')


@pytest.mark.parametrize(
    ('dataset', 'path', 'key'),
    [
        ({**COCO, 'ann_file': ['ann.json', 'no.json']}, 'data/coco/no.json', 'train_dataloader.dataset.ann_file'),
        ({**ADE, 'data_prefix': {'img_path': 'images', 'seg_map_path': 'no'}}, 'data/ade/no', '.data_prefix'),
        ({**IMAGENET, 'split': 'val'}, 'data/imagenet/val', 'train_dataloader.dataset.split'),
        ({**WRAPPED, 'dataset': {**COCO, 'ann_file': 'no'}}, 'data/coco/no', 'dataset.dataset.ann_file'),
        ({**CONCATENATED, 'datasets': [COCO, {**ADE, 'data_root': 'no'}]}, 'no', 'dataset.datasets.1.data_root'),
    ],
)
def test_missing_data_are_named_with_their_key(data, dataset, path, key):
    with pytest.raises(UserError) as caught:
        check_data(config(dataset), 'train')
    assert f'{path} does not exist' in str(caught.value)
    assert f'{key} reads it' in str(caught.value)


def test_evaluators_are_checked_too(data):
    evaluators = [
        {'type': 'CocoMetric', 'ann_file': 'data/coco/ann.json'},
        {'type': 'CocoMetric', 'ann_file': 'no.json'},
    ]
    cfg = Config({'val_dataloader': {'dataset': COCO}, 'val_evaluator': evaluators})
    with pytest.raises(UserError, match=r'no\.json does not exist, but val_evaluator\.1\.ann_file reads it'):
        check_data(cfg, 'train', 'val')


def test_only_the_splits_asked_for_are_checked(data):
    check_data(config({**COCO, 'data_root': 'no'}, 'test'), 'train', 'val')


@pytest.mark.parametrize(
    ('root', 'remedy'), [('data/ade/x', 'ADE20K'), ('data/imagenet', 'ImageNet'), ('data/coco', 'train2017/')]
)
def test_known_data_sets_come_with_their_remedy(tmp_path, monkeypatch, root, remedy):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=remedy):
        check_data(config({**COCO, 'data_root': root}), 'train')


def test_another_data_set_of_a_similar_name_does_not_get_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        check_data(config({**COCO, 'data_root': 'data/coco_stuff164k'}), 'train')
    assert 'train2017' not in str(caught.value)
