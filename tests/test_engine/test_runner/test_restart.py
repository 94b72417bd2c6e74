"""Changes to a config so that its run can be killed and resumed."""

import pytest
from mmengine.config import Config

from mmstvit.engine.runner import make_restartable

from ...helpers import ROOT

CONFIG = ROOT / 'tests' / 'test_training' / 'tiny_classifier.py'


@pytest.fixture
def cfg() -> Config:
    cfg = Config.fromfile(CONFIG)
    cfg.work_dir = 'run'
    return cfg


def test_it_is_added_once(cfg):
    make_restartable(cfg)
    before = cfg.pretty_text
    assert cfg.train_dataloader.dataset.dataset.type == 'CustomDataset'
    assert cfg.train_dataloader.sampler.sampler.type == 'DefaultSampler'
    assert cfg.default_hooks.checkpoint.type == 'mmstvit.CheckpointHook'
    make_restartable(cfg)
    assert cfg.pretty_text == before


def test_without_a_seed_only_checkpoints_are_safe(cfg):
    cfg.randomness = dict(seed=None)
    make_restartable(cfg)
    assert cfg.train_dataloader.dataset.type == 'CustomDataset'
    assert cfg.default_hooks.checkpoint.type == 'mmstvit.CheckpointHook'


def test_an_unknown_sampler_stays_and_is_named(cfg, monkeypatch):
    messages = []
    monkeypatch.setattr('mmstvit.engine.runner.restart.print_log', lambda text, **_: messages.append(text))
    cfg.train_dataloader.sampler = dict(type='mmdet.TrackImgSampler')  # its indices are pairs
    make_restartable(cfg)
    assert cfg.train_dataloader.dataset.type == 'CustomDataset'
    assert cfg.train_dataloader.sampler == dict(type='mmdet.TrackImgSampler')
    assert 'has TrackImgSampler' in messages[0]


def test_checkpoints_elsewhere_are_left_to_mmengine(cfg):
    cfg.default_hooks.checkpoint.out_dir = 's3://bucket'
    make_restartable(cfg)
    assert cfg.default_hooks.checkpoint.type == 'CheckpointHook'


@pytest.mark.parametrize(
    ('strategy', 'kind'), [('DDPStrategy', 'mmstvit.CheckpointHook'), ('FSDPStrategy', 'CheckpointHook')]
)
def test_a_strategy_that_writes_folders_keeps_the_hook_of_mmengine(cfg, strategy, kind):
    cfg.strategy = dict(type=strategy)
    make_restartable(cfg)
    assert cfg.default_hooks.checkpoint.type == kind
