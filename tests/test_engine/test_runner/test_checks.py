"""``mmstvit.engine.runner.checks``: what a config names and is not there is refused, and what is there is not."""

import os
from typing import ClassVar

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from torch import nn

from mmstvit.apis import UserError, check_checkpoint, check_data, check_pretrained, check_weights, read_matching
from mmstvit.errors import CheckpointError
from mmstvit.fileio import safe_loading

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
    assert '  ' not in str(caught.value)
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


def test_a_checkpoint_that_is_not_there_is_refused_and_what_one_is_its_reader_says(tmp_path):
    with pytest.raises(UserError, match=r'the checkpoint gone\.pth does not exist'):
        check_checkpoint('gone.pth')
    check_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match='is a folder'):
        read_matching(nn.Linear(2, 2), str(tmp_path))


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
            ({'init_cfg': PRETRAINED}, None, 'does not exist'),
            ({'init_cfg': [PRETRAINED]}, None, 'does not exist'),
            ({}, 'gone.pth', 'does not exist'),
            ({'backbone': {**PRETRAINED, 'checkpoint': 'other.pth'}}, None, 'there is no STViT'),
            ({'init_cfg': {**PRETRAINED, 'checkpoint': 'other.pth'}}, None, 'backbone weights'),
            ({}, 'other.pth', 'backbone weights'),
            ({'init_cfg': {**PRETRAINED, 'checkpoint': 'other.pth', 'prefix': 'x.'}}, None, "has the prefix 'x.'"),
            ({'backbone': {**PRETRAINED, 'checkpoint': 'page.pth'}}, None, 'a web page'),
            ({}, 'page.pth', 'a web page'),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path, monkeypatch, model, load_from, words):
        monkeypatch.chdir(tmp_path)
        torch.save({'state_dict': nn.Linear(2, 2).state_dict()}, 'other.pth')
        (tmp_path / 'page.pth').write_text('<html>')
        with pytest.raises(CheckpointError, match=words):
            check_weights(Config({'load_from': load_from}), Model(**model))

    @pytest.mark.parametrize('address', ['http://127.0.0.1:9/weights.pth', 's3://bucket/weights.pth'])
    @pytest.mark.parametrize('key', ['load_from', 'init_cfg', 'backbone', 'test'])
    def test_one_process_tries_an_address_and_the_others_wait_for_the_run(self, tmp_path, monkeypatch, address, key):
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
        model = Model(**{key: {**PRETRAINED, 'checkpoint': address}}) if key in ('init_cfg', 'backbone') else Model()

        def check() -> None:
            if key == 'test':
                assert read_matching(model, address) == address
            else:
                check_weights(Config({'load_from': address if key == 'load_from' else None}), model)

        with pytest.raises(CheckpointError, match='Download it and name the file'), safe_loading():
            check()
        monkeypatch.setenv('LOCAL_RANK', '1')
        check()

    def test_a_test_reads_what_fits(self, file):
        source = read_matching(Model(), file)
        assert_equal(source.weights, Model().state_dict())
        with pytest.raises(CheckpointError, match='no weight of this model'):
            read_matching(nn.Conv2d(1, 1, 1), file)


class TestResume:
    training: ClassVar = {'state_dict': Model().state_dict(), 'optimizer': {}, 'meta': {}, 'message_hub': {}}

    @pytest.fixture
    def resume(self, tmp_path):
        def resume(content: dict, auto: bool) -> None:
            path = tmp_path / 'epoch_1.pth'
            torch.save(content, path)
            (tmp_path / 'last_checkpoint').write_text(str(path))
            cfg = {'resume': True, 'load_from': None if auto else str(path), 'work_dir': str(tmp_path)}
            check_weights(Config(cfg), Model())

        return resume

    @pytest.mark.parametrize('auto', [False, True])
    def test_a_training_of_the_same_model_passes(self, resume, auto):
        resume(self.training, auto)

    @pytest.mark.parametrize('auto', [False, True])
    def test_weights_alone_are_refused(self, resume, auto):
        with pytest.raises(CheckpointError, match=r'no optimizer and no meta and no message_hub: .* load_from='):
            resume({'state_dict': self.training['state_dict']}, auto)

    @pytest.mark.parametrize('change', [
        lambda weights: weights.pop('head.bias'),
        lambda weights: weights.update({'neck.weight': torch.zeros(1)}),
        lambda weights: weights.update({'head.weight': torch.zeros(7, 24)}),
    ], ids=['missing', 'unexpected', 'shape'])  # fmt: skip
    def test_another_model_is_refused_with_the_table(self, resume, change):
        weights = Model().state_dict()
        change(weights)
        with pytest.raises(CheckpointError, match=r'with another model:\nweights of (.|\n)*shape mismatch .*'):
            resume({**self.training, 'state_dict': weights}, False)

    def test_a_run_that_has_no_checkpoint_yet_begins_anew(self, tmp_path):
        check_weights(Config({'resume': True, 'work_dir': str(tmp_path)}), Model())
