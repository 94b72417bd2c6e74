"""Changes that the options of ``tools/train.py`` and ``tools/test.py`` make in a config; ``test_tools`` runs most."""

import argparse
import copy

import pytest
import torch
from mmengine.config import Config

from mmstvit.engine.runner.command_options import (
    apply_amp,
    apply_out,
    apply_tta,
    leave_out_training,
    scale_learning_rate,
)
from mmstvit.errors import UserError


def options(**given: object) -> argparse.Namespace:
    return argparse.Namespace(**{'amp': False, 'auto_scale_lr': False, 'tta': False, 'out': None, **given})


AMP, TTA, SCALE = options(amp=True), options(tta=True), options(auto_scale_lr=True)


def config(scope: str, **fields: object) -> Config:
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'Pack', 'meta_keys': ('img_path',)}]
    return Config(
        {
            'default_scope': scope,
            'model': {'type': 'Model'},
            'default_hooks': {'visualization': {'type': 'Hook'}},
            'visualizer': {'type': 'Visualizer'},
            'test_dataloader': {'dataset': {'type': 'Dataset', 'pipeline': pipeline}},
            'test_evaluator': {'type': 'Metric'},
            'optim_wrapper': {'type': 'OptimWrapper', 'optimizer': {'type': 'AdamW', 'lr': 1}},
            **fields,
        }
    )


@pytest.mark.parametrize(
    ('roi_head', 'model'),
    [({'mask_head': {'type': 'Head'}}, 'mmstvit.InstanceSegTTAModel'), ({'mask_head': None}, 'DetTTAModel')],
)
def test_tta_of_two_stage_detectors_merges_masks_if_there_are_any(roi_head, model):
    cfg = config('mmdet', model={'type': 'Model', 'roi_head': roi_head})
    apply_tta(cfg, TTA)
    assert cfg.model.type == model and cfg.model.module.type == 'Model'


@pytest.mark.parametrize('model', [{'mask_head': {}}, {'panoptic_head': {}}, {'roi_head': None, 'mask_head': {}}])
def test_tta_of_other_masks_is_refused(model):
    with pytest.raises(UserError, match='merges masks of two-stage detectors'):
        apply_tta(config('mmdet', model={'type': 'Model', **model}), TTA)


def test_predictions_of_several_datasets_are_written():
    """``test_tools`` writes those of one dataset of each library."""
    cfg = config('mmdet', test_evaluator={'type': 'MultiDatasetsEvaluator', 'metrics': {'type': 'Metric'}})
    apply_out(cfg, options(out='out.pkl'))
    assert [metric.type for metric in cfg.test_evaluator.metrics] == ['Metric', 'DumpDetResults']


def test_a_test_needs_no_strategy_and_no_other_weights():
    cfg = config('mmdet', load_from='other.pth', resume=True, strategy={'type': 'DDPStrategy'}, runner_type='Flexible')
    leave_out_training(cfg)
    assert (cfg.load_from, cfg.resume) == (None, False) and 'strategy' not in cfg and 'runner_type' not in cfg


@pytest.mark.parametrize(('gpu', 'kind'), [(True, 'AmpOptimWrapper'), (False, 'mmstvit.CPUAmpOptimWrapper')])
def test_amp_replaces_the_plain_wrapper_alone(monkeypatch, gpu, kind):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    model = {'type': 'Model', 'backbone': {}}
    cfg = config('mmdet', model=model)
    apply_amp(cfg, AMP)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == (kind, 'dynamic')
    static = config('mmdet', model=model, optim_wrapper={'type': 'AmpOptimWrapper', 'loss_scale': 512.0})
    apply_amp(static, AMP)
    assert (static.optim_wrapper.type, static.optim_wrapper.loss_scale) == (kind, 512.0)
    with pytest.raises(UserError, match="'ApexOptimWrapper'"):
        apply_amp(config('mmdet', model=model, optim_wrapper={'type': 'ApexOptimWrapper'}), AMP)


def test_amp_refuses_what_would_fail_in_the_first_step(monkeypatch):
    bfloat16 = {'type': 'OptimWrapper', 'dtype': 'bfloat16'}
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(UserError, match='RoIAlign has no bfloat16'):
        apply_amp(config('mmdet', model={'type': 'MaskRCNN', 'roi_head': {}}, optim_wrapper=bfloat16), AMP)
    apply_amp(config('mmseg', model={'type': 'EncoderDecoder'}, optim_wrapper=bfloat16), AMP)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UserError, match='EncoderOnly'):
        apply_amp(config('mmseg', model={'type': 'EncoderOnly'}), AMP)


def scaled(world_size: int, monkeypatch, args=SCALE, **fields: object) -> Config:
    monkeypatch.setattr('mmstvit.engine.runner.command_options.get_world_size', lambda: world_size)
    cfg = config('mmdet', **{'auto_scale_lr': {'enable': False, 'base_batch_size': 16}, **fields})
    cfg.train_dataloader = {'batch_size': 4}
    scale_learning_rate(cfg, args)
    return cfg


@pytest.mark.parametrize(('world_size', 'counts', 'factor'), [(1, 1, 0.25), (8, 1, 2.0), (2, 4, 2.0), (3, 1, 0.75)])
def test_the_learning_rate_is_scaled_by_processes_and_accumulated_batches(monkeypatch, world_size, counts, factor):
    wrapper = {'optimizer': {'type': 'SGD', 'lr': 0.1}, 'accumulative_counts': counts}
    cfg = scaled(world_size, monkeypatch, optim_wrapper=wrapper)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.1 * factor)
    # A run with the saved config does not scale again, asked or not.
    assert cfg.auto_scale_lr == {'enable': False, 'base_batch_size': 16 * factor}
    again = copy.deepcopy(cfg)
    scale_learning_rate(again, SCALE)
    assert again.optim_wrapper.optimizer.lr == cfg.optim_wrapper.optimizer.lr


def test_a_config_can_ask_for_scaling_itself(monkeypatch):
    asks = {'enable': True, 'base_batch_size': 16}
    assert scaled(8, monkeypatch, options(), auto_scale_lr=asks).optim_wrapper.optimizer.lr == 2
    assert scaled(8, monkeypatch, options()).optim_wrapper.optimizer.lr == 1
