"""Options for unreadable files in a config; ``test_training/test_unreadable.py`` trains with such files."""

import copy

import pytest
from mmengine.config import Config, ConfigDict

from mmstvit.engine.runner.data import guard_data
from mmstvit.engine.runner.resume import make_restartable
from mmstvit.errors import UserError


def config(**fields: object) -> Config:
    loaders = {
        f'{split}_dataloader': dict(dataset=dict(type=split), sampler=dict(type='DefaultSampler'))
        for split in ('train', 'val', 'test')
    }
    return Config(dict(**loaders, work_dir='work_dir', **fields))


def test_all_that_is_asked_for_is_guarded_once():
    cfg = config(custom_hooks=[dict(type='Other')])
    guard_data(cfg, 'train', 'val')
    assert cfg.train_dataloader.dataset == dict(
        type='mmstvit.GuardedDataset', split='train', dataset=dict(type='train')
    )
    assert cfg.val_dataloader.dataset.split == 'val' and cfg.test_dataloader.dataset == dict(type='test')
    assert [hook.type for hook in cfg.custom_hooks] == ['Other', 'mmstvit.DataFaultHook']
    saved = copy.deepcopy(cfg)
    guard_data(cfg, 'train', 'val')
    assert cfg.to_dict() == saved.to_dict()


def test_skipping_is_for_training():
    cfg = config(data_faults=dict(unreadable='skip'))
    guard_data(cfg, 'train', 'val')
    assert cfg.train_dataloader.dataset.unreadable == 'skip' and 'unreadable' not in cfg.val_dataloader.dataset


def test_the_config_of_an_earlier_run_can_be_told_otherwise():
    cfg = config(randomness=dict(seed=0))
    guard_data(cfg, 'train', 'val')
    make_restartable(cfg)
    assert cfg.train_dataloader.dataset.type == 'mmstvit.SeededDataset'
    cfg.data_faults = ConfigDict(unreadable='skip')
    guard_data(cfg, 'train', 'val')
    guarded = cfg.train_dataloader.dataset.dataset
    assert (guarded.type, guarded.unreadable) == ('mmstvit.GuardedDataset', 'skip')
    assert guarded.dataset == dict(type='train')


def test_a_misspelt_option_is_refused():
    with pytest.raises(UserError, match='unreadible'):
        guard_data(config(data_faults=dict(unreadible='skip')), 'train')
