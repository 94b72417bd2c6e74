"""What a benchmark makes of its measurements."""

import pytest

from mmstvit.analysis.backbones import parse_entry
from mmstvit.analysis.benchmark import Row, run
from mmstvit.analysis.report import as_dict, format_peak, format_table, plot
from mmstvit.analysis.worker import Setting, WorkerError


def row(label: str, *seconds: float, **kwargs: object) -> Row:
    return Row(label, (64, 64), seconds=list(seconds), **kwargs)


def test_a_ratio_within_rounds_does_not_see_the_machine_slow_down():
    """Both take thrice as long from the third round on; the second backbone is always at double the first."""
    first, second = row('first', 1, 1, 3, 3, 3), row('second', 2, 2, 6, 6, 6)
    assert second.ratios(first) == dict(ratio_within_rounds=2, ratio_of_medians=2)
    # The slow-down between the two of the third round: within rounds it counts once, between medians it decides.
    torn = row('torn', 2, 2, 2, 6, 6)
    assert torn.ratios(first) == dict(ratio_within_rounds=2, ratio_of_medians=pytest.approx(2 / 3))


def test_median_and_interquartile_range():
    assert row('a', 5, 1, 3, 2, 4).median == 3
    assert row('a', 5, 1, 3, 2, 4).spread == 2
    assert row('a', 1.5).spread is None


def test_what_failed_has_no_time_and_gives_no_ratio():
    failed, good = row('failed', 1, error='out of memory'), row('good', 2, 2)
    assert failed.median is None and failed.spread is None
    assert failed.ratios(good) == good.ratios(failed) == {}
    assert failed.memory_ratio(good) is None
    table = format_table([failed, good], 0, 4)
    assert 'failed: out of memory' in table.splitlines()
    assert [word for word in table.splitlines()[2].split() if word != '–'] == ['good', '2000.0', '0.0', '2.00']


def test_of_the_peak_is_what_a_step_computes_in_its_time():
    good = row('good', 0.5, 0.25, flops=1_500_000_000, peak_flops=1.6e10)
    assert good.peak_ratio == 0.25
    failed = row('failed', 0.5, 0.25, flops=10**9, peak_flops=1.6e10, error='killed')
    uncounted = row('odd', 0.5, 0.25, peak_flops=1.6e10, uncounted='looks at values')
    no_peak = row('no peak', 0.5, 0.25, flops=10**9)
    assert failed.peak_ratio is None and uncounted.peak_ratio is None and no_peak.peak_ratio is None
    lines = format_table([good, failed, uncounted, no_peak], 0, 1).splitlines()
    assert lines[0].split()[-3:] == ['GFLOP', '%', 'peak']
    assert [line.split()[-2:] for line in lines[1:5]] == [['1.50', '25.0'], ['1.00', '–'], ['–', '–'], ['1.00', '–']]
    assert 'odd: its operations cannot be counted: looks at values' in lines
    assert as_dict([[good]], 0)['results'][0]['peak_ratio'] == 0.25
    product = 'a matrix product of 4096×1024 by 1024×1024 in bf16 in the same rounds'
    assert format_peak([good], Setting(dtype='bf16')) == f'peak  16.0 GFLOP/s: {product}'
    assert format_peak([no_peak], Setting(dtype='bf16')) == f'peak  – GFLOP/s: {product}'


def test_the_table_says_what_was_measured():
    rows = [
        row('one', 0.1, 0.1, cpu_seconds=[0.2, 0.2], memory=2**22, parameters=2_500_000, flops=5 * 10**8),
        row('two', 0.05, 0.05, memory=2**20, parameters=1_000_000, agreement={'features': 1.5e-6}),
    ]
    lines = format_table(rows, 0, 4).splitlines()
    assert lines[1].split() == ['one', '2.50', '100.0', '0.0', '200.0', '40.00', '1.000', '4', '1.000', '0.50', '–']
    assert lines[2].split() == ['two', '1.00', '50.0', '0.0', '–', '80.00', '0.500', '1', '0.250', '–', '–']
    assert lines[3] == 'two agrees with the published algorithm; largest errors: features 1.5e-06'
    assert as_dict([rows], 1)['results'][0]['ratio_within_rounds'] == 2


@pytest.mark.parametrize('shapes', [1, 3])
def test_what_failed_leaves_a_gap_in_the_picture(shapes, tmp_path):
    table = [
        [row('good', 1, memory=2**20), row('bad', error='killed', memory=None)],
        [row('good', 2, memory=2**21), row('bad', 3, memory=2**22)],
        [row('good', 3, memory=2**22), row('bad', 4, memory=2**23)],
    ]
    plot(table[:shapes], 'title', str(tmp_path / 'plot.png'))
    assert (tmp_path / 'plot.png').read_bytes().startswith(b'\x89PNG')


def test_rounds_are_shuffled_and_every_backbone_has_its_turn_in_each(monkeypatch):
    """With workers that only keep a log: the order of calls."""
    calls = []

    class Logged:
        def __init__(self, entry, setting, for_memory):
            self.name = ('probe' if entry is None else entry.name, for_memory)

        def call(self, method, *arguments):
            calls.append((method, *self.name))
            answers = {'prepare': dict(parameters=1), 'memory': dict(bytes=1, source=''), 'count': 10**9}
            return answers.get(method, (0.5, 0.4))

        def close(self):
            calls.append(('close', *self.name))

    monkeypatch.setattr('mmstvit.analysis.benchmark.Worker', Logged)
    names = ['stvit-nano', 'naive-nano', 'swin-tiny']
    (rows,) = run([parse_entry(name) for name in names], Setting(), [(64, 64)], rounds=20, warmup=1)
    assert all(row.seconds == [0.5] * 20 and row.cpu_seconds == [0.4] * 20 for row in rows)
    steps = [name for method, name, _ in calls if method == 'step']
    rounds = [tuple(steps[i : i + 3]) for i in range(0, len(steps), 4)]
    assert steps[3::4] == ['probe'] * 21  # the matrix product after the backbones of every round
    assert all(row.peak_flops == 2 * 4096 * 1024 * 1024 / 0.5 for row in rows)
    assert len(rounds) == 21
    assert all(sorted(turns) == sorted(names) for turns in rounds)
    assert len(set(rounds)) == 6
    # Everything is checked before anything is timed, and memory measured where nothing is.
    methods = [method for method, _, _ in calls]
    assert max(i for i, method in enumerate(methods) if method == 'check') < methods.index('memory')
    assert all(
        for_memory == (method != 'step')
        for method, _, for_memory in calls
        if method in ('check', 'memory', 'count', 'step')
    )
    assert methods.count('close') == 7


def test_backbones_are_measured_where_the_matrix_product_fails(monkeypatch):
    """With workers that compute nothing."""

    class Powerless:
        def __init__(self, entry, setting, for_memory):
            self.entry = entry

        def call(self, method, *arguments):
            if self.entry is None:
                raise WorkerError('out of memory or killed (signal 9)')
            answers = {'prepare': dict(parameters=1), 'memory': dict(bytes=1, source=''), 'count': 'odd'}
            return answers.get(method, (1, 1))

        def close(self):
            pass

    monkeypatch.setattr('mmstvit.analysis.benchmark.Worker', Powerless)
    said = []
    ((row,),) = run([parse_entry('stvit-nano')], Setting(), [(64, 64)], rounds=3, warmup=1, log=said.append)
    assert row.error is None and row.seconds == [1, 1, 1]
    assert row.flops is None and row.uncounted == 'odd' and row.peak_flops is None
    assert said[-1] == 'matrix product: out of memory or killed (signal 9)'
