"""Checks of a config: missing files and parts are refused with their key, existing ones are not."""

import os

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from torch import nn

from mmstvit.engine.runner import check_data, check_pretrained, check_train_loop, check_weights
from mmstvit.errors import CheckpointError, UserError

from ...helpers import assert_equal, tiny


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


@pytest.mark.parametrize(('root', 'remedy'), [('data/ade/x', 'ADE20K'), ('data/imagenet', 'ImageNet')])
def test_known_data_sets_come_with_their_remedy(tmp_path, monkeypatch, root, remedy):
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
        ({'backbone': {'init_cfg': [{'type': 'Normal'}, PRETRAINED]}}, 'model.backbone.init_cfg.1'),
        ({'backbone': {'init_cfg': {**PRETRAINED, 'type': 'mmengine.Pretrained'}}}, 'model.backbone.init_cfg'),
    ],
)
def test_missing_pretrained_weights_are_named_with_their_key(model, key):
    with pytest.raises(UserError, match=f'{key} starts from gone.pth, which does not exist'):
        check_pretrained(Config({'model': model}))


@pytest.mark.parametrize('checkpoint', ['https://example.org/weights.pth', 'torchvision://resnet50', 'here.pth'])
def test_weights_that_exist_or_are_fetched_pass(tmp_path, monkeypatch, checkpoint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here.pth').touch()
    model = {'backbone': {'init_cfg': {'type': 'Pretrained', 'checkpoint': checkpoint}}}
    check_pretrained(Config({'model': model}))


def test_a_missing_load_from_is_named():
    with pytest.raises(UserError, match=r'the checkpoint gone\.pth does not exist'):
        check_pretrained(Config({'model': {}, 'load_from': 'gone.pth'}))


EPOCHS = {'type': 'EpochBasedTrainLoop', 'max_epochs': 12}
ITERATIONS = {'type': 'IterBasedTrainLoop', 'max_iters': 20}


class TestTrainLoop:
    def check(self, train_cfg: dict, *schedulers: dict) -> None:
        check_train_loop(Config({'train_cfg': train_cfg, 'param_scheduler': [*schedulers]}), None)

    @pytest.mark.parametrize(
        ('train_cfg', 'scheduler'),
        [
            (EPOCHS, {'type': 'CosineAnnealingLR'}),
            (ITERATIONS, {'type': 'CosineAnnealingLR', 'convert_to_iter_based': True}),
            ({'type': 'OwnLoop', 'max_epochs': 1, 'max_iters': 2}, {'type': 'CosineAnnealingLR'}),
        ],
    )
    def test_one_unit_passes(self, train_cfg, scheduler):
        self.check(train_cfg, scheduler)

    def test_the_length_of_the_other_loop_is_refused(self):
        with pytest.raises(UserError, match=r'train_cfg\.max_iters') as caught:
            self.check({**ITERATIONS, 'type': 'EpochBasedTrainLoop', 'max_epochs': 12})
        assert 'train_cfg' in caught.value.remedy

    def test_a_scheduler_that_would_never_step_is_refused(self):
        with pytest.raises(UserError, match=r'param_scheduler\.1') as caught:
            self.check(ITERATIONS, {'type': 'LinearLR', 'by_epoch': False}, {'type': 'CosineAnnealingLR'})
        assert 'param_scheduler.1.by_epoch=False' in caught.value.remedy


class Model(BaseModule):
    """A model with a backbone and something after it."""

    def __init__(self, init_cfg: dict | None = None, backbone: dict | None = None) -> None:
        super().__init__(init_cfg)
        self.backbone = tiny(init_cfg=backbone)
        self.head = nn.Linear(24, 5)


class TestWeights:
    @pytest.fixture
    def file(self, tmp_path):
        path = tmp_path / 'file.pth'
        torch.save({'state_dict': Model().state_dict()}, path)
        return str(path)

    def test_what_fits_passes_and_changes_nothing(self, file):
        pretrained = {'type': 'Pretrained', 'checkpoint': file}
        for model in (
            Model(pretrained),
            Model(backbone=pretrained),
            Model([{'type': 'Constant', 'val': 0.0, 'layer': 'Linear'}, pretrained]),
        ):
            before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            check_weights(Config({'load_from': file}), model)
            assert_equal(model.state_dict(), before)

    @pytest.mark.parametrize(
        ('model', 'load_from', 'words'),
        [
            ({'backbone': PRETRAINED}, None, 'does not exist'),
            ({'init_cfg': [PRETRAINED]}, None, 'does not exist'),
            ({}, 'gone.pth', 'does not exist'),
            ({'init_cfg': {**PRETRAINED, 'checkpoint': 'other.pth'}}, None, 'backbone weights'),
            ({}, 'other.pth', 'backbone weights'),
            ({'init_cfg': {**PRETRAINED, 'checkpoint': 'other.pth', 'prefix': 'x.'}}, None, "has the prefix 'x.'"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path, monkeypatch, model, load_from, words):
        monkeypatch.chdir(tmp_path)
        torch.save({'state_dict': nn.Linear(2, 2).state_dict()}, 'other.pth')
        with pytest.raises(CheckpointError, match=words):
            check_weights(Config({'load_from': load_from}), Model(**model))
