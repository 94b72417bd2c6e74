"""Options for unreadable files in a config, and the hook that reports the files at the end of a run."""

import copy
import logging
from types import SimpleNamespace

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, DefaultScope

from mmstvit.engine.hooks import DataFaultHook
from mmstvit.engine.runner.data import guard_data
from mmstvit.engine.runner.resume import make_restartable
from mmstvit.errors import UserError

from ...test_datasets.tiny_data import images, make_config


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


def test_a_test_gets_no_hook_of_training():
    cfg = config()
    guard_data(cfg, 'test')
    assert cfg.test_dataloader.dataset.split == 'test' and 'custom_hooks' not in cfg
    cfg = Config(dict(test_dataloader=None))
    guard_data(cfg, 'test')
    assert cfg.test_dataloader is None


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


def runner(folder, **options: object) -> SimpleNamespace:
    """Return the part of a runner that the hook reads, with a data set of which two files are unreadable."""
    cfg = make_config('mmpretrain', folder).train_dataloader.dataset
    broken = images('mmpretrain', folder, 'train')[:2]
    for path in broken:
        path.write_bytes(b'')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(dict(type='mmstvit.GuardedDataset', dataset=cfg, **options))
    loader = SimpleNamespace(dataset=dataset)
    return SimpleNamespace(train_dataloader=loader, log_dir=str(folder), logger=logging.getLogger('data'))


def test_the_hook_counts_at_the_end(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run = runner(tmp_path, unreadable='skip')
    DataFaultHook().after_train(run)
    assert caplog.messages == ['Unreadable files: 0.']
    dataset = run.train_dataloader.dataset
    for i in range(len(dataset)):
        dataset[i]
    DataFaultHook().after_train(run)
    counts = dataset.pipeline.skips
    assert counts[:2].min() >= 1 and counts[2:].sum() == 0
    paths = [str(path) for path in images('mmpretrain', tmp_path, 'train')[:2]]
    expected = [
        f'{path}: the file is empty (0 bytes) ({count}×)' for path, count in zip(paths, counts.tolist(), strict=False)
    ]
    assert (tmp_path / 'unreadable_files.txt').read_text().splitlines() == expected
    summary, *rest = caplog.messages[-1].splitlines()
    assert f'Unreadable files: 2. They were replaced by other samples {counts.sum()} times' in summary
    assert [line.strip() for line in rest] == expected


def test_the_hook_is_silent_where_nothing_is_skipped(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    DataFaultHook().after_train(runner(tmp_path))
    assert not caplog.messages
