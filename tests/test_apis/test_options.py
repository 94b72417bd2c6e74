"""What the options of ``tools/train.py`` and ``tools/test.py`` change in a config, for every library."""

import argparse

import pytest
import torch
from mmengine.config import Config

from mmstvit.apis import UserError

from ..helpers import load_tool

train, test = load_tool('train.py'), load_tool('test.py')


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


SHOW = argparse.Namespace(show=False, show_dir='out', wait_time=2)


def test_show_dir_speaks_each_librarys_words():
    detection, segmentation, classification = (config(scope) for scope in ('mmdet', 'mmseg', 'mmpretrain'))
    for cfg in (detection, segmentation, classification):
        test.apply_show(cfg, SHOW)
    assert detection.default_hooks.visualization.draw
    assert detection.default_hooks.visualization.test_out_dir == 'out'
    assert segmentation.default_hooks.visualization.draw
    assert segmentation.visualizer.save_dir == 'out'
    hook = classification.default_hooks.visualization
    assert (hook.enable, hook.out_dir, hook.interval) == (True, 'out', 1)


def test_show_without_a_hook_is_refused():
    with pytest.raises(UserError, match=r'default_hooks\.visualization'):
        test.apply_show(config('mmdet', default_hooks={}), SHOW)


@pytest.mark.parametrize(('scope', 'model'), [('mmdet', 'DetTTAModel'), ('mmpretrain', 'AverageClsScoreTTA')])
@pytest.mark.parametrize('wrapped', [False, True])
def test_tta_flips_by_default(scope, model, wrapped):
    cfg = config(scope)
    if wrapped:
        cfg.test_dataloader.dataset = dict(type='RepeatDataset', dataset=cfg.test_dataloader.dataset)
    test.apply_tta(cfg)
    assert cfg.model.type == model and cfg.model.module.type == 'Model'
    dataset = cfg.test_dataloader.dataset.dataset if wrapped else cfg.test_dataloader.dataset
    first, last = dataset.pipeline
    assert first.type == 'LoadImageFromFile'
    flips, (pack,) = last.transforms
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert pack.meta_keys == ('img_path', 'flip', 'flip_direction')


@pytest.mark.parametrize('missing', ['tta_model', 'tta_pipeline'])
def test_tta_of_segmentation_takes_nothing_for_granted(missing):
    fields = {'tta_model': {'type': 'SegTTAModel'}, 'tta_pipeline': []}
    del fields[missing]
    with pytest.raises(UserError, match='tta_model and tta_pipeline'):
        test.apply_tta(config('mmseg', **fields))


@pytest.mark.parametrize(
    ('roi_head', 'model'),
    [({'mask_head': {'type': 'Head'}}, 'mmstvit.InstanceSegTTAModel'), ({'mask_head': None}, 'DetTTAModel')],
)
def test_tta_of_two_stage_detectors_merges_masks_where_there_are_some(roi_head, model):
    cfg = config('mmdet', model={'type': 'Model', 'roi_head': roi_head})
    test.apply_tta(cfg)
    assert cfg.model.type == model and cfg.model.module.type == 'Model'


@pytest.mark.parametrize('model', [{'mask_head': {}}, {'panoptic_head': {}}, {'roi_head': None, 'mask_head': {}}])
def test_tta_of_other_masks_is_refused(model):
    with pytest.raises(UserError, match='merges the masks of two-stage detectors'):
        test.apply_tta(config('mmdet', model={'type': 'Model', **model}))


def test_tta_of_the_config_is_used():
    cfg = config('mmseg', tta_model={'type': 'SegTTAModel'}, tta_pipeline=[{'type': 'Ours'}])
    test.apply_tta(cfg)
    assert cfg.model.type == 'SegTTAModel' and cfg.model.module.type == 'Model'
    assert cfg.test_dataloader.dataset.pipeline == [{'type': 'Ours'}]


def test_out_is_a_folder_for_segmentation_and_a_pickle_file_elsewhere():
    cfg = config('mmseg')
    test.apply_out(cfg, 'folder')
    assert cfg.test_evaluator.output_dir == 'folder' and cfg.test_evaluator.keep_results
    test.apply_out(config('mmdet'), 'out.pkl')
    with pytest.raises(UserError, match=r'\.pkl'):
        test.apply_out(config('mmpretrain'), 'folder')


def test_metrics_of_any_kind_are_printed(capsys):
    test.print_metrics({'accuracy/top1': 51.25, 'precision': [1.0, 2.0], 'matrix': torch.eye(2)})
    printed = capsys.readouterr().out
    assert 'accuracy/top1   51.2500' in printed
    assert '[1.0, 2.0]' in printed and 'tensor([[1., 0.]' in printed


@pytest.mark.parametrize(('gpu', 'kind'), [(True, 'AmpOptimWrapper'), (False, 'mmstvit.CPUAmpOptimWrapper')])
def test_amp_replaces_the_plain_wrapper_alone(monkeypatch, gpu, kind):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    model = {'type': 'Model', 'backbone': {}}
    cfg = config('mmdet', model=model)
    train.apply_amp(cfg)
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale) == (kind, 'dynamic')
    static = config('mmdet', model=model, optim_wrapper={'type': 'AmpOptimWrapper', 'loss_scale': 512.0})
    train.apply_amp(static)
    assert (static.optim_wrapper.type, static.optim_wrapper.loss_scale) == (kind, 512.0)
    with pytest.raises(UserError, match="'ApexOptimWrapper'"):
        train.apply_amp(config('mmdet', model=model, optim_wrapper={'type': 'ApexOptimWrapper'}))


def test_amp_refuses_what_would_fail_in_the_first_step(monkeypatch):
    bfloat16 = {'type': 'OptimWrapper', 'dtype': 'bfloat16'}
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    with pytest.raises(UserError, match='RoIAlign has no bfloat16'):
        train.apply_amp(config('mmdet', model={'type': 'MaskRCNN', 'roi_head': {}}, optim_wrapper=bfloat16))
    train.apply_amp(config('mmseg', model={'type': 'EncoderDecoder'}, optim_wrapper=bfloat16))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(UserError, match='EncoderOnly has not'):
        train.apply_amp(config('mmseg', model={'type': 'EncoderOnly'}))


def test_auto_scale_lr_needs_a_base_batch():
    cfg = config('mmdet', auto_scale_lr={'enable': False, 'base_batch_size': 16})
    train.apply_auto_scale_lr(cfg)
    assert cfg.auto_scale_lr.enable
    for value in ({}, None, {'enable': False}):
        with pytest.raises(UserError, match='base_batch_size'):
            train.apply_auto_scale_lr(config('mmdet', auto_scale_lr=value))
