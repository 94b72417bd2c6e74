"""tools/analysis_tools/benchmark.py."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmstvit import STViT
from mmstvit.errors import UserError
from mmstvit.models.published import PublishedSTViT

from ..helpers import load_tool, tiny

benchmark = load_tool('analysis_tools/benchmark.py')

# A backbone that raises if its limit is 0, and is killed by wider images, as by a system without memory left.
BACKBONES = """
import os, signal, torch
from mmengine.registry import MODELS

@MODELS.register_module()
class Fragile(torch.nn.Module):
    def __init__(self, limit=64):
        super().__init__()
        self.limit = limit
        self.scale = torch.nn.Parameter(torch.ones(()))
    def forward(self, x):
        if self.limit == 0:
            raise ValueError('this backbone does not work')
        if x.shape[3] > self.limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return tuple(self.scale * torch.nn.functional.avg_pool2d(x, s) for s in (4, 8, 16, 32))
"""
CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['fragile_backbones'])
model = dict(backbone=dict(type='Fragile'))
"""


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., str]:
    """Run the tool in this process, its workers in theirs; returns its standard output."""

    def run(*args: object) -> str:
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, args), '--threads', '1'])
        benchmark.main()
        return capsys.readouterr().out

    return run


@pytest.mark.long
def test_training_beside_backbones_that_fail(run, tmp_path, monkeypatch):
    (tmp_path / 'fragile_backbones.py').write_text(BACKBONES)
    (tmp_path / 'config.py').write_text(CONFIG)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    killed, broken = f'{tmp_path}/config.py', f'{tmp_path}/config.py+limit=0'
    args = ['--mode', 'train', '--shape', 64, 96, '--rounds', 2, '--warmup', 0, '--json', tmp_path / 'result.json']
    text = run('stvit-nano', killed, broken, *args)
    ours, *failed = json.loads((tmp_path / 'result.json').read_text())['results']
    assert ours['error'] is None and ours['memory'] > 0 and ours['parameters'] > 1e6
    assert len(ours['seconds']) == 2 and min(ours['seconds']) > 0
    assert [row['label'] for row in failed] == [killed, broken]
    assert 'killed by signal 9' in failed[0]['error']
    assert failed[1]['error'] == 'ValueError: this backbone does not work'
    for row in failed:
        assert row['seconds'] == [] and row['memory'] is row['ratio'] is row['median'] is None
        assert f'{row["label"]}: {row["error"]}' in text
    assert '1 × 3 × 64 × 96, train, fp32, 2 rounds' in text


def test_the_table_adds_up(tmp_path):
    ours = benchmark.Row('ours', (64, 64), 2_000_000, 4 * 2**20, [0.1, 0.3, 0.2])
    other = benchmark.Row('other', (64, 64), 1, 6 * 2**20, [0.2, 0.3, 0.6])  # 2, 1 and 3 times as slow
    table = benchmark.format_table([ours, other], ours, batch_size=8).splitlines()
    assert table[1].split() == ['ours', '2.00', '200.0', '100.0', '40.00', '1.000', '4', '1.000']
    assert table[2].split()[2:] == ['300.0', '200.0', '26.67', '2.000', '6', '1.500']
    wide = [benchmark.Row(row.label, (64, 96), memory=row.memory, seconds=row.seconds) for row in (ours, other)]
    for name, shapes in {'bars': [[ours, other]], 'curves': [[ours, other], wide]}.items():
        benchmark.plot(shapes, 'title', str(tmp_path / f'{name}.png'))
        assert (tmp_path / f'{name}.png').stat().st_size > 10_000


def test_a_backbone_that_disagrees_is_not_timed(monkeypatch):
    def break_model(entry, model):
        with torch.no_grad():
            model.stages[2][0].ffn.fc2.weight *= 1.001
        return model

    bench = benchmark.Bench('stvit-nano', benchmark.argparse.Namespace(**OPTIONS), False)
    bench.check()
    monkeypatch.setattr(benchmark, 'finish', break_model)
    with pytest.raises(UserError, match=r'stvit-nano disagrees .* not timed: feature map 2 is off by'):
        bench.check()


OPTIONS = dict(mode='inference', batch_size=1, device='cpu', dtype='fp32', threads=None)


def scaled_gradients(model: STViT):
    return lambda x: tuple(y + 0.01 * (y - y.detach()) for y in model(x))


def frozen_scale(model: STViT):
    model.stages[1][0].gamma1.requires_grad_(False)
    return model


def test_gradients_and_rounding_are_part_of_the_comparison():
    def disagreements(finish, train, dtype):
        return {
            name: error for name, (error, _) in benchmark.check_agreement(tiny().train(train), finish, dtype).items()
        }

    for dtype in benchmark.DTYPES:
        assert disagreements(lambda model: model, True, dtype) == {}
        wrong = disagreements(lambda model: lambda x: tuple(1.1 * y for y in model(x)), False, dtype)
        assert set(wrong) == {f'feature map {i}' for i in range(4)}
    wrong = disagreements(scaled_gradients, True, 'fp32')
    assert wrong['gradient of image'] == pytest.approx(0.01, rel=0.01)
    assert disagreements(frozen_scale, True, 'fp32') == {'gradient of stages.1.0.gamma1': float('inf')}
    nan = disagreements(lambda model: lambda x: tuple(y * float('nan') for y in model(x)), False, 'fp32')
    assert len(nan) == 4


@pytest.mark.parametrize('mode', ['inference', 'train'])
def test_a_whole_detector_takes_steps(mode):
    config = Path(benchmark.__file__).parents[2] / 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'
    bench = benchmark.Bench(f'{config}+whole', benchmark.argparse.Namespace(**{**OPTIONS, 'mode': mode}), False)
    assert bench.prepare(64, 96) > 2e6
    assert bench.step() > 0


def test_options_of_an_entry():
    entry = benchmark.parse_entry('stvit-nano+with_cp=True+stoken_size=8,4,2,1+deploy+bf16+OMP_NUM_THREADS=1')
    assert entry.switches == ['deploy', 'bf16'] and entry.variables == {'OMP_NUM_THREADS': '1'}
    model = benchmark.build(entry).eval()
    assert model.with_cp and model.stages[2][0].attn.stoken_size == 2
    assert benchmark.finish(entry, model).deploy
    assert isinstance(benchmark.finish(benchmark.parse_entry('naive-nano'), tiny()), PublishedSTViT)
    for name in benchmark.OTHERS:
        model = benchmark.build(benchmark.parse_entry(name))
        model.eval()  # returns None for some
        maps = model(torch.zeros(1, 3, 64, 96))
        assert [tuple(x.shape[2:]) for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['stvit-nan'], "'stvit-nan'. Did you mean 'stvit-nano'"),
        (['stvit-nano+fast'], r'stvit-nano\+fast: an option is deploy'),
        (['stvit-nano+bf16+fp16'], 'one precision'),
        (['stvit-nano', '--shape', '0', '64'], '--shape .* 0 64'),
        (['stvit-nano', '--baseline', 'naive-nano'], "--baseline .* 'naive-nano'"),
        (['stvit-nano', '--device', 'cuda:99'], '--device cuda:99'),
    ],
)
def test_a_wrong_command_is_refused_before_anything_starts(run, capsys, monkeypatch, args, message):
    monkeypatch.setattr(benchmark, 'Worker', None)
    with pytest.raises(SystemExit, match=f'^error: .*{message}') as caught:
        run(*args)
    assert '\n' not in str(caught.value)
    assert capsys.readouterr().out == ''


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('stvit-nano+fast=True', "cannot be built: .*'fast'"),
        ('naive-nano+with_cp=True', 'no with_cp'),
    ],
)
def test_a_model_that_cannot_be_built_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        benchmark.build(benchmark.parse_entry(text))
