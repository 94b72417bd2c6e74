"""Checks of a config: missing files and parts are refused with their key, existing ones are not."""

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from torch import nn

from mmstvit.engine.runner.initial_weights import check_weights
from mmstvit.engine.runner.requirements import check_pretrained, check_train_loop, check_train_parts
from mmstvit.errors import CheckpointError, UserError

from ...helpers import assert_equal, tiny

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


EPOCHS = {'type': 'EpochBasedTrainLoop', 'max_epochs': 12}
ITERATIONS = {'type': 'IterBasedTrainLoop', 'max_iters': 20}


class TestTrainLoop:
    def check(self, train_cfg: dict, *schedulers: dict) -> None:
        check_train_loop(Config({'train_cfg': train_cfg, 'param_scheduler': [*schedulers]}))

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

    def test_a_scheduler_that_would_never_step_is_refused(self):
        with pytest.raises(UserError, match=r'param_scheduler\.1') as caught:
            self.check(ITERATIONS, {'type': 'LinearLR', 'by_epoch': False}, {'type': 'CosineAnnealingLR'})
        assert 'param_scheduler.1.by_epoch=False' in caught.value.remedy

    def test_a_misspelt_setting_of_the_loop_is_named(self):
        with pytest.raises(UserError, match=r"train_cfg\.max_epoch\. Did you mean 'max_epochs'"):
            self.check({**EPOCHS, 'max_epoch': 3}, [])
        self.check({**EPOCHS, '_scope_': 'mmdet'}, [])

    def test_epochs_in_a_config_by_iterations(self):
        cfg = Config(dict(train_cfg={**ITERATIONS, 'max_epochs': 1}, log_processor=dict(by_epoch=False)))
        with pytest.raises(UserError, match=r'does not accept train_cfg\.max_epochs') as caught:
            check_train_loop(cfg)
        assert 'train_cfg.max_iters=N train_cfg.val_interval=N' in caught.value.remedy


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


def test_half_of_a_validation_is_refused():
    cfg = Config({key: {} for key in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'val_dataloader')})
    with pytest.raises(UserError, match=r'no val_cfg and no val_evaluator.*val_dataloader=None'):
        check_train_parts(cfg)
    cfg.val_dataloader = None
    check_train_parts(cfg)
