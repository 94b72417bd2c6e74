"""tools/analysis_tools/benchmark.py."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmstvit.errors import UserError
from mmstvit.models.published import PublishedSTViT

from ..helpers import load_tool, tiny

benchmark = load_tool('analysis_tools/benchmark.py')
DETECTOR = Path(benchmark.__file__).parents[2] / 'configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'
OPTIONS = dict(mode='inference', batch_size=1, device='cpu', dtype='fp32', threads=None, steps=1, shape=[64, 96])

# A backbone that raises if its limit is 0, and is killed by wider images, as by a system without memory left.
BACKBONES = """
import os, signal, torch
from mmengine.registry import MODELS

@MODELS.register_module()
class Fragile(torch.nn.Module):
    def __init__(self, limit=64, init_cfg=None):
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
    """Run the tool in this process, its workers in theirs; returns its exit code and standard output."""

    def run(*args: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *map(str, args), '--threads', '1'])
        return benchmark.main(), capsys.readouterr().out

    return run


@pytest.mark.slow
def test_training_next_to_backbones_that_fail(run, tmp_path, monkeypatch):
    (tmp_path / 'fragile_backbones.py').write_text(BACKBONES)
    (tmp_path / 'config.py').write_text(CONFIG)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    killed, broken = f'{tmp_path}/config.py', f'{tmp_path}/config.py+limit=0'
    args = ['--mode', 'train', '--shape', 64, 96, '--rounds', 2, '--warmup', 0, '--json', tmp_path / 'new/result.json']
    code, text = run('stvit-nano', killed, broken, *args)
    ours, *failed = json.loads((tmp_path / 'new/result.json').read_text())['results']
    assert ours['error'] is None and ours['memory'] > 0 and ours['parameters'] > 1e6
    assert len(ours['seconds']) == 2 and min(ours['seconds']) > 0
    assert [row['label'] for row in failed] == [killed, broken]
    assert 'killed by signal 9' in failed[0]['error']
    assert failed[1]['error'] == 'ValueError: this backbone does not work'
    for row in failed:
        assert row['seconds'] == [] and row['memory'] is None
        assert f'{row["label"]}: {row["error"]}' in text
    assert '64×96, batch of 1, train, fp32' in text and code == 1


def test_the_table_adds_up():
    ours = benchmark.BenchmarkResult('ours', (64, 64), 2_000_000, 4 * 2**20, [0.1, 0.3, 0.2])
    other = benchmark.BenchmarkResult('other', (64, 64), 1, 6 * 2**20, [0.2, 0.3, 0.6])  # 2, 1 and 3 times as slow
    failed = benchmark.BenchmarkResult('failed', (64, 64), error='no memory')
    table = benchmark.format_table([ours, other, failed], ours, batch_size=8).splitlines()
    assert table[1].split() == ['ours', '2.00', '200.00', '100.00', '40.00', '1.000', '4', '1.000']
    assert table[2].split()[2:] == ['300.00', '200.00', '26.67', '2.000', '6', '1.500']
    assert table[3].split() == ['failed', *'–––––––'] and table[4] == 'failed: no memory'


@pytest.mark.parametrize(
    ('dtype', 'train', 'finish', 'wrong'),
    [
        ('fp32', False, lambda model: lambda x: tuple(1.001 * y for y in model(x)), 'feature map 0'),
        ('fp32', False, lambda model: lambda x: tuple(y * float('nan') for y in model(x)), 'feature map 0'),
        ('bf16', False, lambda model: lambda x: tuple(1.1 * y for y in model(x)), 'feature map 0'),
        ('fp32', True, lambda model: lambda x: tuple(y + 0.01 * (y - y.detach()) for y in model(x)), 'image'),
        ('fp32', True, lambda model: model.stages[1][0].norm1.requires_grad_(False) and model, 'stages.1.0.norm1'),
    ],
)
def test_a_model_that_disagrees_with_the_published_algorithm_is_not_timed(dtype, train, finish, wrong):
    with pytest.raises(UserError, match=f'disagrees .* not timed: .*{wrong}.* is off by'):
        benchmark.check_agreement(tiny().train(train), finish, dtype)


@pytest.mark.parametrize('dtype', benchmark.DTYPES)
def test_a_model_agrees_in_every_precision(dtype):
    benchmark.check_agreement(tiny(frozen_stages=1).train(), lambda model: model, dtype)


@pytest.mark.parametrize('mode', ['inference', 'train'])
@pytest.mark.parametrize('text', ['stvit-nano', f'{DETECTOR}+whole'])
def test_steps(text, mode):
    args = benchmark.argparse.Namespace(**{**OPTIONS, 'mode': mode})
    results = benchmark.work(benchmark.parse_entry(text), args, first=False)
    assert next(results) > 0
    results.close()


def test_whole_detectors_have_the_same_boxes_whatever_their_weights():
    found = []
    for scale in (0.01, 1.0):
        model = benchmark.build_entry(benchmark.parse_entry(f'{DETECTOR}+whole')).eval()
        for weight in [*model.rpn_head.parameters(), *model.roi_head.bbox_head.parameters()]:
            weight.data.normal_(std=scale)
        args = benchmark.argparse.Namespace(**OPTIONS)
        with torch.no_grad():
            (sample,) = benchmark.prepare_detector(model, args)()
        found.append(sample.pred_instances)
    assert len(found[0]) == len(found[1]) == 20
    torch.testing.assert_close(found[0].bboxes, found[1].bboxes)


def test_options_of_an_entry():
    entry = benchmark.parse_entry('stvit-nano+with_cp=True+stoken_size=8,4,2,1+deploy+bf16+OMP_NUM_THREADS=1')
    assert entry.switches == ['deploy', 'bf16'] and entry.variables == {'OMP_NUM_THREADS': '1'}
    model = benchmark.build_entry(entry).eval()
    assert model.with_cp and model.stages[2][0].attn.stoken_size == 2
    assert benchmark.finish(entry, model).deploy
    assert isinstance(benchmark.finish(benchmark.parse_entry('naive-nano'), tiny()), PublishedSTViT)
    for name in benchmark.OTHERS:
        model = benchmark.build_entry(benchmark.parse_entry(name))
        model.eval()  # returns None for some
        maps = model(torch.zeros(1, 3, 64, 96))
        assert [tuple(x.shape[2:]) for x in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['stvit-nan'], "'stvit-nan'. Did you mean 'stvit-nano'"),
        (['stvit-nano+fast'], r'stvit-nano\+fast: an option is deploy'),
        (['stvit-nano+bf16+fp16'], 'one precision'),
        (['stvit-nano', '--device', 'cuda:99'], '--device cuda:99'),
    ],
)
def test_a_wrong_command_is_refused_before_anything_starts(run, monkeypatch, args, message):
    monkeypatch.setattr(benchmark, 'measure', None)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match=f'^error: .*{message}') as caught:
        run(*args)
    assert '\n' not in str(caught.value)
