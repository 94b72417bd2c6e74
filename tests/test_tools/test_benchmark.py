"""The benchmark as a user runs it."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..helpers import ROOT, load_tool

benchmark = load_tool('analysis_tools/benchmark.py')

CONFIG = """
default_scope = 'mmpretrain'
custom_imports = dict(imports=['tests.test_analysis.bad_backbones'])
model = dict(backbone=dict(type='{}'{}))
"""


@pytest.fixture
def config(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Write the config of a bad backbone."""
    monkeypatch.syspath_prepend(ROOT)  # of the workers, too

    def write(name: str, arguments: str = '') -> Path:
        file = tmp_path / f'{name}.py'
        file.write_text(CONFIG.format(name, arguments))
        return file

    return write


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., str]:
    """Run the tool in this process, the workers in theirs; returns its standard output."""

    def run(*args: object) -> str:
        argv = [*map(str, args), '--threads', '1']
        monkeypatch.setattr(sys, 'argv', ['benchmark.py', *argv])
        benchmark.main()
        return capsys.readouterr().out

    return run


def test_training_over_several_shapes_with_a_backbone_that_is_killed(run, config, tmp_path):
    mortal = config('Mortal')
    files = ['--json', tmp_path / 'result.json', '--plot', tmp_path / 'plot.png']
    shapes = ['--shape', 64, 64, '--shape', 64, 96]
    text = run(mortal, 'stvit-nano', '--mode', 'train', '--rounds', 2, '--baseline', 'stvit-nano', *shapes, *files)
    result = json.loads((tmp_path / 'result.json').read_text())
    assert result['command'].startswith(f'python benchmark.py {mortal} stvit-nano --mode train')
    assert result['settings']['mode'] == 'train'
    assert result['environment']['threads'] == '1'
    assert result['baseline'] == 'stvit-nano'
    rows = {(row['label'], *row['shape']): row for row in result['results']}
    assert list(rows) == [(name, 64, width) for width in (64, 96) for name in (str(mortal), 'stvit-nano')]
    killed = rows.pop((str(mortal), 64, 96))
    assert killed['error'] == 'out of memory or killed (signal 9)'
    assert killed['seconds'] == [] and killed['memory'] is None and killed['ratio_within_rounds'] is None
    assert killed['flops'] is None and killed['peak_ratio'] is None
    for row in rows.values():
        assert row['error'] is None
        assert len(row['seconds']) == len(row['cpu_seconds']) == 2
        assert min(row['seconds'] + row['cpu_seconds']) > 0
        assert row['median'] == sum(row['seconds']) / 2
        assert row['memory'] > 0 and row['memory_source'] == 'VmHWM'
        assert row['peak_ratio'] == row['flops'] / row['median'] / row['peak_flops']
    for width in (64, 96):
        ours = rows['stvit-nano', 64, width]
        assert set(ours['agreement']) == {'features', 'gradients', 'statistics'}
        assert ours['ratio_within_rounds'] == ours['ratio_of_medians'] == ours['memory_ratio'] == 1
        assert ours['parameters'] > 1e6
        assert ours['flops'] > 6 * 2e7 and ours['peak_flops'] > 0
    # One peak for the rounds of a shape.
    assert rows['stvit-nano', 64, 64]['flops'] < rows['stvit-nano', 64, 96]['flops']
    assert rows['stvit-nano', 64, 64]['peak_flops'] == rows[str(mortal), 64, 64]['peak_flops']
    simple = rows[str(mortal), 64, 64]
    assert simple['parameters'] == 1 and simple['agreement'] is None
    assert simple['ratio_of_medians'] == simple['median'] / rows['stvit-nano', 64, 64]['median']
    assert '1 × 3 × 64 × 96, train, fp32, 2 rounds' in text
    assert f'{mortal}: out of memory or killed (signal 9)' in text
    assert 'stvit-nano agrees with the published algorithm' in text
    peaks = re.findall(r'^peak  (\S+) GFLOP/s: a matrix product of 4096×1024 by 1024×1024 in fp32', text, re.M)
    assert [float(peak) > 0 for peak in peaks] == [True, True]
    assert (tmp_path / 'plot.png').stat().st_size > 10_000


@pytest.mark.long
def test_a_failure_is_a_row_and_the_others_go_on(run, config):
    greedy = config('Greedy')
    text = run(greedy, 'stvit-nano', 'naive-nano', '--shape', 64, 64, '--rounds', 1, '--profile', '--dtype', 'bf16')
    (failure,) = [line for line in text.splitlines() if line.startswith(f'{greedy}: ')]
    assert 'memory' in failure
    for name in ('stvit-nano', 'naive-nano'):
        (row,) = [line.split() for line in text.splitlines() if line.startswith(f'{name}  ')]
        assert float(row[2]) > 0
        assert f'{name} at 64×64, one step' in text
    assert 'stages.3' in text and 'inference, bf16, 1 rounds' in text


@pytest.mark.parametrize('mode', [pytest.param('inference', marks=pytest.mark.long), 'train'])
def test_what_disagrees_is_refused(run, config, mode):
    wrong = config('Wrong', ", arch='nano'")
    with pytest.raises(SystemExit, match=f'error: {wrong} disagrees .* not timed: features 2 is off by 0.001'):
        run(wrong, '--shape', 64, 64, '--mode', mode)


@pytest.mark.long
def test_three_maps_are_refused(run, config):
    with pytest.raises(SystemExit, match=r'Narrow\.py returns 3 feature maps, and a detector needs 4'):
        run(config('Narrow'), '--shape', 64, 64)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['stvit-nan'], "unknown backbone 'stvit-nan'. Did you mean 'stvit-nano'"),
        (['stvit-nano', '--shape', '0', '64'], '--shape must be two positive numbers, but got 0 64'),
        (['stvit-nano', '--rounds', '0'], '--rounds must be 1 or more, but got 0'),
        (['stvit-nano', '--batch-size', '-1'], '--batch-size must be 1 or more, but got -1'),
        (['stvit-nano', '--baseline', 'naive-nano'], "--baseline must be one of the backbones.*but got 'naive-nano'"),
        (['stvit-nano', '--device', 'abacus'], '--device must be a device of PyTorch .* but got abacus'),
        (['stvit-nano', '--device', 'cuda:99'], '--device cuda:99'),
        (['stvit-nano', '--json', 'nowhere/a.json'], 'nowhere/a.json cannot be written'),
    ],
)
def test_bad_options_are_refused_in_one_line_before_anything_starts(run, capsys, monkeypatch, args, message):
    monkeypatch.setattr('mmstvit.analysis.benchmark.Worker', None)
    with pytest.raises(SystemExit, match=f'^error: .*{message}') as caught:
        run(*args)
    assert '\n' not in str(caught.value)
    assert capsys.readouterr().out == ''
