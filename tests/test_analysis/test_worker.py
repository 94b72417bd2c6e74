"""What happens in the process of a backbone."""

import gc
from pathlib import Path

import pytest
import torch

from mmstvit.analysis import worker
from mmstvit.analysis.backbones import parse_entry
from mmstvit.analysis.complexity import measure
from mmstvit.analysis.worker import Bench, Probe, Setting, Worker, WorkerError, peak_growth
from mmstvit.apis import UserError

from ..helpers import assert_equal, load_config

MIB = 2**20


def bench(text: str = 'stvit-nano', **setting) -> Bench:
    return Bench(parse_entry(text), Setting(**setting))


def test_the_peak_counts_and_not_what_is_left():
    def step():
        for _ in range(3):
            torch.ones(32 * MIB)  # 128 MiB each, freed at once

    measured = peak_growth(step)
    assert measured['source'] == 'VmHWM'
    assert measured['bytes'] == pytest.approx(128 * MIB, abs=16 * MIB)
    assert peak_growth(lambda: None)['bytes'] < 16 * MIB


def test_where_the_peak_cannot_be_reset_its_growth_is_taken_and_said(monkeypatch, tmp_path):
    monkeypatch.setattr(worker, '_CLEAR_REFS', tmp_path / 'nothing' / 'here')
    measured = peak_growth(lambda: None)
    assert measured['source'] == 'ru_maxrss, growth of the peak'
    assert 0 <= measured['bytes'] < MIB


def test_a_step_of_inference_leaves_the_model_as_it_is():
    subject = bench()
    parameters = subject.prepare((64, 96))['parameters']
    before = {name: value.clone() for name, value in subject.backbone.state_dict().items()}
    assert all(seconds > 0 for seconds in subject.step())
    assert_equal(subject.backbone.state_dict(), before)
    assert parameters == sum(p.numel() for p in subject.backbone.parameters())


def test_a_step_of_training_moves_every_parameter_and_holds_no_gradient():
    subject = bench(train=True, batch_size=2)
    subject.prepare((64, 96))
    before = {name: p.clone() for name, p in subject.backbone.named_parameters()}
    subject.step()
    assert not [name for name, p in subject.backbone.named_parameters() if torch.equal(p, before[name])]
    assert not [name for name, p in subject.backbone.named_parameters() if p.grad is not None]
    assert subject.backbone.training


def test_operations_are_counted_for_the_batch_the_mode_and_what_is_run(monkeypatch):
    """The same number as that of the tool for configs; compiled or not, and computed nowhere."""
    monkeypatch.setattr(torch, 'compile', None)
    cost = measure(load_config('mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes'), (64, 96)).modules['backbone']
    assert bench().count((64, 96)) == 2 * cost.everything
    assert bench('stvit-nano+compile', batch_size=2).count((64, 96)) == 4 * cost.everything
    assert bench(train=True, dtype='bf16').count((64, 96)) == 6 * cost.everything
    assert bench('stvit-nano+with_cp=True', train=True).count((64, 96)) == 6 * cost.everything
    # Without the BatchNorms that are folded into layers.
    assert 0.9 * 2 * cost.everything < bench('stvit-nano+deploy').count((64, 96)) < 2 * cost.everything


def test_what_runs_and_cannot_be_counted_says_why(monkeypatch):
    class Curious(torch.nn.Module):
        def forward(self, x):
            return [x] * 4 if x.mean().item() < 1 else None

    monkeypatch.setattr(worker, 'build_backbone', lambda entry: Curious())
    assert 'meta' in bench('swin-tiny').count((64, 64))


@pytest.mark.parametrize('dtype', ['fp32', 'bf16', 'fp16'])
def test_the_probe_multiplies_in_the_type_of_the_run(dtype, monkeypatch):
    monkeypatch.setitem(worker.PROBES, 'cpu', (128, 32, 48))
    products = []
    linear = worker.dense.linear
    monkeypatch.setattr(worker.dense, 'linear', lambda *args: products.append(linear(*args)))
    probe = Probe(Setting(dtype=dtype))
    probe.prepare()
    seconds, cpu_seconds = probe.step()
    assert seconds > 0 and cpu_seconds > 0
    assert [tuple(x.shape) for x in products] == [(1, 64, 2, 48)] * 2
    assert {x.dtype for x in products} == {dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)[dtype]}


def test_a_worker_without_a_backbone_is_the_probe():
    member = Worker(None, Setting(threads=1))
    try:
        assert member.call('prepare') is None
        assert min(member.call('step')) > 0
    finally:
        member.close()


def test_training_holds_activations_and_gradients():
    """More than inference, by at least the gradients."""
    memory = {}
    for train in (False, True):
        subject = bench(train=train)
        parameters = subject.prepare((128, 128))['parameters']
        memory[train] = subject.memory()['bytes']
    assert memory[True] > memory[False] + 4 * parameters


def test_release_lets_everything_go():
    subject = bench(train=True)
    subject.prepare((64, 64))
    subject.release()
    gc.collect()
    assert not [x for x in vars(subject).values() if isinstance(x, (torch.Tensor, torch.nn.Module))]


def test_what_is_deployed_is_deployed_and_does_not_train():
    class Deployed(Exception):
        pass

    class Backbone(torch.nn.Identity):
        def switch_to_deploy(self):
            raise Deployed

    with pytest.raises(UserError, match=r'swin-tiny\+deploy: Identity has no switch_to_deploy'):
        bench('swin-tiny+deploy')._finish(torch.nn.Identity())
    with pytest.raises(Deployed):
        bench('stvit-nano+deploy')._finish(Backbone())
    with pytest.raises(UserError, match='deployed does not train'):
        bench('stvit-nano+deploy', train=True)._finish(Backbone())


def test_what_is_compiled_is_checked_and_timed(monkeypatch):
    """With a compiler that makes mistakes."""
    monkeypatch.setattr(torch, 'compile', lambda model: lambda x: tuple(y * 1.01 for y in model(x)))
    assert set(bench('stvit-nano').check()) == {'features'}
    for subject in (bench('stvit-nano+compile'), bench('stvit-nano', compile=True)):
        with pytest.raises(UserError, match=r'disagrees .* off by 0\.01'):
            subject.check()
        subject.prepare((64, 64))
        assert subject.forward is not subject.backbone


def test_rivals_and_the_published_algorithm_are_not_checked():
    assert bench('naive-nano').check() is None


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize('text', ['stvit-nano', 'naive-nano'])
def test_the_profile_tells_the_stages_apart(text, train):
    subject = bench(text, train=train)
    subject.prepare((64, 64))
    profile = subject.profile()
    rows = {row['name']: row for row in profile['stages']}
    stages = ['patch_embed', *(f'downsamples.{i}' for i in range(3)), *(f'stages.{i}' for i in range(4))]
    assert list(rows) == [*stages, 'elsewhere', 'all', *['optimizer'] * train]
    for key in ('forward_ms', 'backward_ms')[: 1 + train]:
        assert all(rows[name][key] > 0 for name in stages)
        assert sum(rows[name][key] for name in [*stages, 'elsewhere']) == pytest.approx(rows['all'][key])
        # Next to nothing is outside of the stages but, in the backward pass, the sums of gradients.
        assert rows['elsewhere'][key] < 0.5 * rows['all'][key]
    assert bool(rows['all']['backward_ms']) == train
    assert any('conv' in operator['name'] for operator in profile['operators'])
    times = [operator['ms'] for operator in profile['operators']]
    assert times == sorted(times, reverse=True)


def test_stages_of_compiled_code_are_not_told_apart():
    subject = bench()
    subject.prepare((64, 64))
    subject.compiled = True
    assert [row['name'] for row in subject.profile()['stages']] == ['all']


def test_a_worker_that_dies_is_mourned_in_one_line():
    for exitcode, epitaph in ((-9, 'out of memory or killed (signal 9)'), (-11, 'killed by signal 11')):
        assert worker._epitaph(exitcode) == epitaph
    assert worker._epitaph(3) == 'its process ended with exit code 3'


def test_a_worker_calls_its_bench_and_ends():
    member = Worker(parse_entry('stvit-nano'), Setting(batch_size=2), for_memory=True)
    try:
        assert member.call('prepare', (192, 192))['parameters'] > 1e6
        # The first to go when memory runs out, before the process that reports it.
        assert Path(f'/proc/{member._process.pid}/oom_score_adj').read_text() == '1000\n'
        first, second = (member.call('memory')['bytes'] for _ in range(2))
        assert first > 8 * MIB
        assert second == pytest.approx(first, abs=2 * MIB)
        with pytest.raises(WorkerError, match=r'^ValueError: STViT needs images of at least 32×32'):
            member.call('prepare', (16, 16))
        with pytest.raises(WorkerError, match='its process ended with exit code 1'):
            member.call('step')
    finally:
        member.close()
    assert not member._process.is_alive()


@pytest.mark.parametrize(('option', 'dtype'), [('', torch.float32), ('+bf16', torch.bfloat16)])
def test_a_precision_of_its_own(option, dtype):
    subject = Bench(parse_entry(f'stvit-nano{option}'), Setting())
    subject.prepare((64, 64))
    seen = []
    subject.backbone.stages[0][0].attn.qkv.register_forward_hook(lambda _, args, out: seen.append(out.dtype))
    subject.step()
    assert seen == [dtype]
