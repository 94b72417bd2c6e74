"""``mmstvit.apis.checks``: what a config names and is not there is refused, and what is there is not."""

import os

import pytest
from mmengine.config import Config
from torch import nn

from mmstvit.apis import UserError, check_checkpoint, check_data, check_match, check_pretrained


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
        COCO,
        ADE,
        IMAGENET,
        WRAPPED,
        CONCATENATED,
        {**COCO, 'ann_file': ['ann.json', 'ann.json']},
        {**COCO, 'ann_file': ''},
        {**IMAGENET, 'ann_file': 'train.txt', 'data_prefix': 'train'},
        {'type': 'CIFAR10', 'data_root': 'data/imagenet', 'split': 'test'},
        {**COCO, 'data_root': 's3://bucket/coco'},
        {**COCO, 'data_root': 'elsewhere', 'backend_args': {'backend': 'petrel'}},
    ],
)
def test_what_is_there_or_not_local_passes(data, dataset):
    check_data(config(dataset), 'train')


@pytest.mark.parametrize(
    ('dataset', 'path', 'key'),
    [
        ({**COCO, 'data_root': 'data/none'}, 'data/none', 'train_dataloader.dataset.data_root'),
        ({**COCO, 'ann_file': 'no.json'}, 'data/coco/no.json', 'train_dataloader.dataset.ann_file'),
        ({**COCO, 'ann_file': ['ann.json', 'no.json']}, 'data/coco/no.json', 'train_dataloader.dataset.ann_file'),
        ({**COCO, 'data_prefix': {'img': 'no/'}}, 'data/coco/no/', 'train_dataloader.dataset.data_prefix'),
        ({**ADE, 'data_prefix': {'img_path': 'images', 'seg_map_path': 'no'}}, 'data/ade/no', '.data_prefix'),
        ({**IMAGENET, 'split': 'val'}, 'data/imagenet/val', 'train_dataloader.dataset.split'),
        ({**IMAGENET, 'data_prefix': 'no'}, 'data/imagenet/no', 'train_dataloader.dataset.data_prefix'),
        (
            {**WRAPPED, 'dataset': {**COCO, 'ann_file': 'no'}},
            'data/coco/no',
            'train_dataloader.dataset.dataset.ann_file',
        ),
        ({**CONCATENATED, 'datasets': [COCO, {**ADE, 'data_root': 'no'}]}, 'no', 'dataset.datasets.1.data_root'),
    ],
)
def test_what_is_missing_is_named_with_its_key(data, dataset, path, key):
    with pytest.raises(UserError) as caught:
        check_data(config(dataset), 'train')
    assert str(caught.value).startswith(f'{path} does not exist')
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
    ('root', 'remedy'),
    [
        ('data/scenes/coco', 'scenes.py'),
        ('data/coco', 'train2017/'),
        ('data/ade/x', 'ADE20K'),
        ('data/imagenet', 'ImageNet'),
    ],
)
def test_known_data_sets_come_with_the_command(tmp_path, monkeypatch, root, remedy):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=remedy):
        check_data(config({**COCO, 'data_root': root}), 'train')


def test_another_data_set_of_a_similar_name_does_not_get_the_remedy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        check_data(config({**COCO, 'data_root': 'data/coco_stuff164k'}), 'train')
    assert 'train2017' not in str(caught.value)


PRETRAINED = {'type': 'Pretrained', 'checkpoint': 'gone.pth'}


@pytest.mark.parametrize(
    ('model', 'key'),
    [
        ({'backbone': {'init_cfg': PRETRAINED}}, 'model.backbone.init_cfg'),
        ({'init_cfg': PRETRAINED}, 'model.init_cfg'),
        ({'backbone': {'init_cfg': [{'type': 'Normal'}, PRETRAINED]}}, 'model.backbone.init_cfg.1'),
        ({'backbone': {'init_cfg': {**PRETRAINED, 'type': 'mmengine.Pretrained'}}}, 'model.backbone.init_cfg'),
    ],
)
def test_missing_pretrained_weights_are_named_with_their_key(model, key):
    with pytest.raises(UserError, match=f'{key} starts from gone.pth, which does not exist'):
        check_pretrained(Config({'model': model}))


@pytest.mark.parametrize('checkpoint', ['https://example.org/weights.pth', 'torchvision://resnet50', 'here.pth'])
def test_weights_that_are_there_or_fetched_pass(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here.pth').touch()
    model = {'backbone': {'init_cfg': {'type': 'Pretrained', 'checkpoint': checkpoint}}}
    check_pretrained(Config({'model': model}))


def test_a_missing_load_from_is_named():
    with pytest.raises(UserError, match=r'the checkpoint gone\.pth does not exist'):
        check_pretrained(Config({'model': {}, 'load_from': 'gone.pth'}))


def test_a_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match='does not exist'):
        check_checkpoint(str(tmp_path))


class TestMatch:
    model = nn.Sequential(nn.Linear(2, 2))

    @pytest.mark.parametrize('prefix', ['', 'module.'])
    def test_one_common_key_is_enough(self, prefix):
        check_match(self.model, {'state_dict': {f'{prefix}0.weight': 0, 'other': 1}}, 'a.pth')

    def test_wrappers_inside_wrappers_are_seen_through(self):
        wrapped = nn.ModuleDict({'module': nn.ModuleDict({'module': self.model})})
        check_match(wrapped, {'state_dict': {'0.weight': 0}}, 'a.pth')
        with pytest.raises(UserError, match='no weight of this model'):
            check_match(wrapped, {'state_dict': {'submodule.0.weight': 0}}, 'a.pth')

    @pytest.mark.parametrize('checkpoint', [{'state_dict': {'backbone.x': 0}}, {'model': {'0.weight': 0}}, {}])
    def test_none_is_refused_with_examples_of_both(self, checkpoint):
        with pytest.raises(UserError, match=r"a\.pth has no weight of this model.*'0\.bias'.*stvit_to_mm\.py"):
            check_match(self.model, checkpoint, 'a.pth')
