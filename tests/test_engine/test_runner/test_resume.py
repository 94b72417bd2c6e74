"""What makes a run restartable, which checkpoint it continues from, and which ones are refused."""

import argparse
import copy
import os
import shutil
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.optim import BaseOptimWrapper, ConstantLR, OptimWrapper, OptimWrapperDict, ZeroRedundancyOptimizer
from torch import nn

from mmstvit.engine.optimizers import CPUAmpOptimWrapper
from mmstvit.engine.runner.resume import (
    ResumedValuesHook,
    apply_resume,
    check_resume,
    find_checkpoint,
    make_restartable,
)
from mmstvit.errors import CheckpointError, UserError

from ...helpers import TINY_CLASSIFIER

MODEL = nn.Linear(2, 3)
HUB = {'log_scalars': {}, 'runtime_info': {}, 'resumed_keys': {}}
RUN = {'state_dict': MODEL.state_dict(), 'optimizer': {}, 'meta': {'epoch': 2, 'iter': 8}, 'message_hub': HUB}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The work dir of a run with two checkpoints, given relative to the working directory as tools give it."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'run'
    folder.mkdir()
    for epoch in (1, 2):
        torch.save({**RUN, 'meta': {'epoch': epoch, 'iter': 4 * epoch}}, folder / f'epoch_{epoch}.pth')
        os.utime(folder / f'epoch_{epoch}.pth', (epoch, epoch))
    (folder / 'last_checkpoint').write_text('run/epoch_2.pth')
    return folder


class TestFind:
    def test_the_last_checkpoint_also_of_a_copied_and_of_a_moved_work_dir(self, run, tmp_path):
        assert find_checkpoint('run') == 'run/epoch_2.pth'
        (run / 'last_checkpoint').write_text(str(run / 'epoch_2.pth'))
        shutil.copytree(run, tmp_path / 'copy')
        assert find_checkpoint('copy') == 'copy/epoch_2.pth'
        run.rename(tmp_path / 'moved')
        assert find_checkpoint(str(tmp_path / 'moved')) == str(tmp_path / 'moved' / 'epoch_2.pth')

    def test_checkpoints_may_be_in_another_folder(self, run, tmp_path):
        """``default_hooks.checkpoint.out_dir``"""
        out = tmp_path / 'out' / 'run'
        out.mkdir(parents=True)
        (run / 'epoch_2.pth').rename(out / 'epoch_2.pth')
        (run / 'last_checkpoint').write_text(str(out / 'epoch_2.pth'))
        assert find_checkpoint('run') == str(out / 'epoch_2.pth')

    def test_a_name_that_no_file_can_have_and_another_that_a_shell_would_execute(self, run):
        (run / 'last_checkpoint').write_text('run/epoch\0.pth')
        (run / 'epoch_2.pth').rename(run / 'epoch_$(touch x).pth')
        with pytest.raises(UserError, match=r"missing.*--resume 'run/epoch_\$\(touch x\).pth'"):
            find_checkpoint('run')

    @pytest.mark.parametrize(('content', 'state'), [(None, 'missing'), (b'PK half of it', 'damaged')])
    def test_a_checkpoint_that_cannot_be_used_is_named_with_another_whole_one(self, run, content, state):
        (run / 'epoch_2.pth').unlink()
        if content:
            (run / 'epoch_2.pth').write_bytes(content)
        torch.save({'state_dict': {}}, run / 'best_epoch_1.pth')  # has no optimizer to continue with
        with pytest.raises(UserError, match=f'run/epoch_2.pth.* {state}') as caught:
            find_checkpoint('run')
        assert '--resume run/epoch_1.pth' in caught.value.remedy
        (run / 'epoch_1.pth').unlink()
        with pytest.raises(UserError) as caught:
            find_checkpoint('run')
        assert 'new run' in caught.value.remedy

    def test_a_run_that_was_killed_before_its_first_checkpoint_has_none(self, tmp_path):
        (tmp_path / '20260101_000000').mkdir()
        assert find_checkpoint(str(tmp_path)) is None


class TestApply:
    @pytest.mark.parametrize(
        ('given', 'asked', 'load_from', 'resume'),
        [
            ({}, None, None, False),
            ({}, 'auto', 'run/epoch_2.pth', True),
            ({}, 'run/epoch_1.pth', 'run/epoch_1.pth', True),
            # As in the saved config of a resumed run.
            ({'resume': True}, None, 'run/epoch_2.pth', True),
            ({'resume': True, 'load_from': 'run/epoch_1.pth'}, None, 'run/epoch_1.pth', True),
            ({'resume': True, 'load_from': 'run/epoch_1.pth'}, 'auto', 'run/epoch_2.pth', True),
            ({'resume': True, 'work_dir': 'new'}, None, None, False),
            # Killed before its first checkpoint: the run starts from its pretrained weights again.
            ({'load_from': 'pretrained.pth', 'work_dir': 'killed'}, 'auto', 'pretrained.pth', False),
        ],
    )
    def test_the_config_names_the_checkpoint(self, run, given, asked, load_from, resume):
        (run.parent / 'killed' / '20260101_000000').mkdir(parents=True)
        cfg = Config({'work_dir': 'run', **given})
        apply_resume(cfg, argparse.Namespace(resume=asked))
        assert (cfg.get('load_from'), bool(cfg.get('resume'))) == (load_from, resume)


class TestCheck:
    @pytest.fixture
    def check(self, tmp_path):
        def check(content: dict, **train_cfg: object) -> bool:
            path = tmp_path / 'epoch_2.pth'
            torch.save(content, path)
            return check_resume(Config({'resume': True, 'load_from': str(path), 'train_cfg': train_cfg}), MODEL)

        return check

    @pytest.mark.parametrize(
        ('train_cfg', 'left'),
        [({'max_epochs': 3}, True), ({'max_epochs': 2}, False), ({'max_iters': 9}, True), ({'max_iters': 8}, False)],
    )
    def test_a_finished_run_is_not_continued(self, check, train_cfg, left):
        assert check(RUN, **train_cfg) is left

    @pytest.mark.parametrize(
        ('key', 'value', 'words'),
        [
            ('meta', {'epoch': '1', 'iter': 8}, "meta.epoch is '1'"),
            ('meta', {'epoch': 2}, 'meta.iter'),
            ('meta', {'epoch': 2, 'iter': 10**30}, 'meta.iter is 1000'),
            ('meta', {'epoch': 2, 'iter': 8, 'seed': 'x\n'}, 'meta.seed'),
            ('meta', ['epoch'], 'meta is a list'),
            ('message_hub', [HUB], 'message_hub is a list'),
            ('message_hub', {}, 'message_hub.log_scalars'),
            ('message_hub', {**HUB, 'resumed_keys': {'train/loss': 'x'}}, "resumed_keys.train/loss is 'x'"),
            ('message_hub', {**HUB, 'runtime_info': {'best_score': 'x'}}, 'best_score'),
            ('message_hub', {**HUB, 'runtime_info': {'best_score': 1j}}, 'best_score'),
            ('message_hub', {**HUB, 'runtime_info': {'train_samples': torch.ones(3)}}, 'train_samples'),
            ('message_hub', {**HUB, 'log_scalars': {1: 2}}, 'log_scalars'),
            ('message_hub', {**HUB, 'log_scalars': {'loss': HistoryBuffer(['a'], [1])}}, 'log_scalars.loss'),
            ('optimizer', [{}], 'optimizer is a list'),
        ],
    )
    def test_states_of_other_types_are_refused_by_name(self, check, key, value, words):
        with pytest.raises(CheckpointError, match='a run cannot continue from') as caught:
            check({**RUN, key: value}, max_epochs=3)
        assert words in caught.value.problem and 'load_from=' in caught.value.remedy

    @pytest.mark.parametrize('change', [
        lambda weights: weights.pop('bias'),
        lambda weights: weights.update({'neck.weight': torch.zeros(1)}),
        lambda weights: weights.update({'weight': torch.zeros(7, 24)}),
    ], ids=['missing', 'unexpected', 'shape'])  # fmt: skip
    def test_another_model_is_refused_with_the_table(self, check, change):
        weights = dict(RUN['state_dict'])
        change(weights)
        with pytest.raises(CheckpointError, match=r'another model:\n(.|\n)*shape mismatch') as caught:
            check({**RUN, 'state_dict': weights})
        assert 'load_from=' in caught.value.remedy


class TestRestartable:
    @pytest.fixture
    def cfg(self) -> Config:
        cfg = Config.fromfile(TINY_CLASSIFIER)
        cfg.work_dir = 'run'
        return cfg

    def test_it_is_added_once(self, cfg):
        make_restartable(cfg)
        before = cfg.pretty_text
        assert cfg.train_dataloader.dataset.dataset.type == 'CustomDataset'
        assert cfg.train_dataloader.sampler.sampler.type == 'DefaultSampler'
        assert cfg.default_hooks.checkpoint.type == 'mmstvit.CheckpointHook'
        make_restartable(cfg)
        assert cfg.pretty_text == before

    def test_without_a_seed_only_checkpoints_are_safe(self, cfg):
        cfg.randomness = dict(seed=None)
        make_restartable(cfg)
        assert cfg.train_dataloader.dataset.type == 'CustomDataset'
        assert cfg.default_hooks.checkpoint.type == 'mmstvit.CheckpointHook'

    def test_an_unknown_sampler_stays_and_is_named(self, cfg, monkeypatch):
        messages = []
        monkeypatch.setattr('mmstvit.engine.runner.resume.print_log', lambda text, **_: messages.append(text))
        cfg.train_dataloader.sampler = dict(type='mmdet.TrackImgSampler')  # its indices are pairs
        make_restartable(cfg)
        assert cfg.train_dataloader.dataset.type == 'CustomDataset'
        assert cfg.train_dataloader.sampler == dict(type='mmdet.TrackImgSampler')
        assert 'has TrackImgSampler' in messages[0]

    @pytest.mark.parametrize(
        ('fields', 'kind'),
        [
            ({'default_hooks.checkpoint.out_dir': 's3://bucket'}, 'CheckpointHook'),
            ({'strategy.type': 'FSDPStrategy'}, 'CheckpointHook'),  # writes folders
            ({'strategy.type': 'DDPStrategy'}, 'mmstvit.CheckpointHook'),
        ],
    )
    def test_what_is_no_local_file_is_left_to_mmengine(self, cfg, fields, kind):
        cfg.merge_from_dict(fields)
        make_restartable(cfg)
        assert cfg.default_hooks.checkpoint.type == kind

    @pytest.mark.parametrize('hooks', [None, {}, {'checkpoint': None}])
    def test_hooks_that_a_config_leaves_out(self, cfg, hooks):
        cfg.default_hooks = hooks
        make_restartable(cfg)
        checkpoint = cfg.default_hooks.checkpoint
        assert checkpoint is None if hooks else checkpoint == {'type': 'mmstvit.CheckpointHook', 'interval': 1}


GROUP = torch.optim.SGD(MODEL.parameters(), lr=0.1).state_dict()['param_groups'][0]


def check(wrapper: BaseOptimWrapper, optimizer: object, own: object = (), schedulers: object = ()) -> None:
    """Check the states of a checkpoint against an optimizer and schedulers, as a resumed run does."""
    checkpoint = {**RUN, 'optimizer': copy.deepcopy(optimizer), 'param_schedulers': schedulers}
    runner = SimpleNamespace(_load_from='epoch_1.pth', hooks=[], optim_wrapper=wrapper, param_schedulers=own)
    ResumedValuesHook().after_load_checkpoint(runner, checkpoint)


@pytest.mark.parametrize(
    ('optimizer', 'schedulers', 'words'),
    [
        ({'param_groups': [GROUP, GROUP]}, [], r'param_groups that SGD cannot use .*number of parameter groups'),
        (torch.optim.AdamW(MODEL.parameters()).state_dict(), [], 'that SGD cannot use .*momentum'),
        ({'param_groups': [{**GROUP, 'lr': 'x'}]}, [], 'param_groups'),
        ({'param_groups': [{**GROUP, 'lr': 1j}]}, [], 'param_groups'),
        ({'param_groups': [{**GROUP, 'lr': torch.ones(3)}]}, [], 'param_groups'),
        ({'param_groups': [{**GROUP, 'lr': None}]}, [], 'param_groups'),
        ({'param_groups': [{**GROUP, 'maximize': 'x'}]}, [], "maximize='x'"),
        ({'param_groups': [GROUP], 'state': {0: 'x'}}, [], "optimizer.state.0='x'"),
        ({'param_groups': [GROUP], 'state': 'x'}, [], "optimizer.state='x'"),
        ({'param_groups': 5}, [], 'param_groups that SGD cannot use'),
        ({'param_groups': [GROUP]}, [{'last_step': 'x'}], "last_step='x'"),
        ({'param_groups': [GROUP]}, [{'last_step': 1, 'base_values': ['x']}], "base_values.0='x'"),
        ({'param_groups': [GROUP]}, [{'last_step': 1, 'optimizer': {}}], 'optimizer='),
        ({'param_groups': [GROUP]}, [{'last_step': 1, 'param_name': 'nope'}], "param_name='nope'"),
        ({'param_groups': [GROUP]}, ['x'], "param_scheduler.0='x'"),
    ],
)
def test_an_optimizer_or_scheduler_of_another_kind_is_refused(optimizer, schedulers, words):
    wrapper = OptimWrapper(torch.optim.SGD(MODEL.parameters(), lr=0.1))
    with pytest.raises(UserError, match=rf'epoch_1\.pth .*{words}') as caught:
        check(wrapper, optimizer, [ConstantLR(wrapper)], schedulers)
    assert 'load_from=epoch_1.pth' in caught.value.remedy


@pytest.fixture(params=['plain', 'fused', 'amp', 'several', 'zero'])
def optimizer(request, tmp_path) -> Iterator[tuple[BaseOptimWrapper, dict, dict]]:
    """An optimizer after a step, its state, and the part of it for AdamW."""
    model = nn.Linear(2, 3)
    if request.param == 'zero':
        torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/group', rank=0, world_size=1)
        adam = ZeroRedundancyOptimizer(model.parameters(), 'AdamW')
    else:
        adam = torch.optim.AdamW(model.parameters(), fused=request.param == 'fused')
    wrapper = CPUAmpOptimWrapper(adam, dtype='float16') if request.param == 'amp' else OptimWrapper(adam)
    wrapper.update_params(model(torch.ones(2)).sum())
    if request.param == 'several':
        wrapper = OptimWrapperDict(head=wrapper, neck=OptimWrapper(torch.optim.SGD(MODEL.parameters(), lr=0.1)))
    state = copy.deepcopy(wrapper.state_dict())
    yield wrapper, state, state['head'] if request.param == 'several' else state
    if request.param == 'zero':
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('exp_avg', torch.ones(3)),
        ('exp_avg', 7),
        ('exp_avg', torch.empty(3, 2, device='meta')),
        ('exp_avg', torch.ones(3, 2).to_sparse()),
        ('exp_avg', None),
        ('step', torch.ones(2)),
        ('amsgrad', True),
        ('betas', (0.9,)),
    ],
)
def test_a_state_that_the_optimizer_cannot_have_made_is_refused(optimizer, name, value):
    """Fused kernels of PyTorch write outside of tensors of other shapes."""
    wrapper, state, adam = optimizer
    check(wrapper, state)
    part = adam['param_groups'][0] if name in adam['param_groups'][0] else adam['state'][0]
    part[name] = value
    with pytest.raises(UserError, match=rf'(optimizer|head)\.(state|param_groups)|{name}='):
        check(wrapper, state)


@pytest.mark.parametrize('scaler', [7, {}, {'scale': 'x'}, torch.ones(2)])
def test_the_state_of_a_loss_scaler(scaler):
    wrapper = CPUAmpOptimWrapper(torch.optim.SGD(MODEL.parameters(), lr=0.1), dtype='float16')
    state = wrapper.state_dict()
    check(wrapper, {key: state[key] for key in ('state', 'param_groups')})  # of a run without --amp
    if isinstance(scaler, dict) and scaler:
        scaler = {**state['loss_scaler'], **scaler}
    with pytest.raises(UserError, match=r'optimizer\.loss_scaler'):
        check(wrapper, {**state, 'loss_scaler': scaler})


def test_optimizers_of_other_names():
    wrapper = OptimWrapper(torch.optim.SGD(MODEL.parameters(), lr=0.1))
    several = OptimWrapperDict(head=wrapper)
    check(several, several.state_dict(), {'head': [ConstantLR(wrapper)]}, {'head': [ConstantLR(wrapper).state_dict()]})
    for state in ({'neck': wrapper.state_dict()}, {}):
        with pytest.raises(UserError, match='optimizers of other names'):
            check(several, state)


def test_values_that_differ_from_the_config_are_logged(monkeypatch):
    messages = []
    monkeypatch.setattr('mmstvit.engine.runner.resume.print_log', lambda text, **_: messages.append(text))
    wrapper = OptimWrapper(torch.optim.SGD(MODEL.parameters(), lr=0.1))
    saved, own = ConstantLR(wrapper).state_dict(), ConstantLR(wrapper, factor=0.5)
    check(wrapper, {'param_groups': [{**GROUP, 'lr': 0.3, 'initial_lr': 0.3}]}, [own, own], [saved])
    lines = [line.strip() for line in messages[0].splitlines()[1:-1]]
    assert lines == [
        'optim_wrapper.optimizer.lr: 0.3 in the checkpoint, 0.1 in the config',
        'param_scheduler.number: 1 in the checkpoint, 2 in the config',
        f'param_scheduler.0.factor: {saved["factor"]} in the checkpoint, 0.5 in the config',
    ]
