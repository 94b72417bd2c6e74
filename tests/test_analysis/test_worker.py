"""What happens in the process of a backbone."""

import gc
from pathlib import Path

import pytest
import torch

from mmstvit.analysis import worker
from mmstvit.analysis.backbones import parse_entry
from mmstvit.analysis.worker import Bench, Setting, Worker, WorkerError, peak_growth
from mmstvit.apis import UserError

from ..helpers import assert_equal

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
