"""Time and memory of backbones, side by side in one run on one device.

Every backbone lives in a process of its own. In every round each takes one step, in an order drawn anew, while the
others wait: when the machine slows down, it slows down for all of them, and a ratio is taken within a round. Before
anything is timed, backbones of ours are compared with the published algorithm, and memory is measured in processes
that nothing is timed in. After the backbones of every round a large matrix product has its turn: it tells how many
operations per second the processor could do in that round.
"""

import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

import torch

from .backbones import Entry
from .worker import PROBES, Setting, Worker, WorkerError

# What the ratios are.
RATIOS = {
    'ratio_within_rounds': 'median over rounds of (time / time of the baseline in the same round)',
    'ratio_of_medians': 'median time / median time of the baseline',
}


@dataclass
class Row:
    """What was measured of one backbone on images of one shape.

    Args:
        label: The entry as given, numbered where it was given more than once.
        shape: Height and width of the images.
        error: Why something is missing; None if nothing is.
        parameters: Number of parameters.
        flops: Floating-point operations of a step; see :meth:`mmstvit.analysis.worker.Bench.count`.
        uncounted: Why they are not known, of a backbone that runs and cannot be counted.
        peak_flops: Floating-point operations per second of a large matrix product in the same rounds.
        agreement: Largest errors against the published algorithm, of a backbone of ours.
        memory: Bytes that a step adds at its peak; see :meth:`mmstvit.analysis.worker.Bench.memory`.
        memory_source: Where they come from.
        seconds: Time of one step of every round.
        cpu_seconds: Time that processors spent on it, see :meth:`mmstvit.analysis.worker.Bench.step`.
        profile: Where a step spends its time; see :func:`mmstvit.analysis.profiling.profile`.
    """

    label: str
    shape: tuple[int, int]
    error: str | None = None
    parameters: int | None = None
    flops: int | None = None
    uncounted: str | None = None
    peak_flops: float | None = None
    agreement: dict[str, float] | None = None
    memory: int | None = None
    memory_source: str | None = None
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    profile: dict[str, list[dict]] | None = None

    @property
    def median(self) -> float | None:
        """Median time of a step in seconds."""
        return statistics.median(self.seconds) if self.seconds and not self.error else None

    @property
    def spread(self) -> float | None:
        """Interquartile range of the times in seconds."""
        if self.median is None or len(self.seconds) < 2:
            return None
        first, _, third = statistics.quantiles(self.seconds, n=4, method='inclusive')
        return third - first

    @property
    def peak_ratio(self) -> float | None:
        """Floating-point operations per second over those of the matrix product."""
        if self.median is None or self.flops is None or self.peak_flops is None:
            return None
        return self.flops / self.median / self.peak_flops

    def ratios(self, baseline: 'Row') -> dict[str, float]:
        """Time over the baseline's time, by the names in :data:`RATIOS`; empty if one of the two has none."""
        if self.median is None or baseline.median is None:
            return {}
        within = [mine / theirs for mine, theirs in zip(self.seconds, baseline.seconds, strict=True)]
        return dict(ratio_within_rounds=statistics.median(within), ratio_of_medians=self.median / baseline.median)

    def memory_ratio(self, baseline: 'Row') -> float | None:
        return self.memory / baseline.memory if self.memory is not None and baseline.memory else None


def run(
    entries: Sequence[Entry],
    setting: Setting,
    shapes: Sequence[tuple[int, int]],
    rounds: int,
    warmup: int,
    profile: bool = False,
    log: Callable[[str], None] = lambda message: None,
) -> list[list[Row]]:
    """Measure backbones.

    Args:
        entries: The backbones; one given twice shows how far two equal ones are measured apart.
        setting: How to run them.
        shapes: Height and width of the images, one or several.
        rounds: Steps to time of every backbone, on every shape.
        warmup: Steps before them.
        profile: Whether to profile a step, too.
        log: Told what is being done.

    Returns:
        For every shape a row for every entry. A backbone that fails, or is killed, has a row that says so.

    Raises:
        UserError: A backbone of ours disagrees with the published algorithm, or cannot be built.
    """
    labels = _labels(entries)
    table = [[Row(label, shape) for label in labels] for shape in shapes]
    _measure_memory(entries, setting, table, log)
    _measure_time(entries, setting, table, rounds, warmup, profile, log)
    return table


def _labels(entries: Sequence[Entry]) -> list[str]:
    seen, labels = Counter(), []
    for entry in entries:
        seen[entry.text] += 1
        labels.append(entry.text if seen[entry.text] == 1 else f'{entry.text} ({seen[entry.text]})')
    return labels


class _Team:
    """A worker for every entry, a new one where the last is gone; None among the entries stands for the probe."""

    def __init__(self, entries: Sequence[Entry | None], setting: Setting, for_memory: bool) -> None:
        self._start = lambda i: Worker(entries[i], setting, for_memory)
        self._workers: list[Worker | None] = [None] * len(entries)

    def __enter__(self) -> '_Team':
        return self

    def __exit__(self, *_: object) -> None:
        for i in range(len(self._workers)):
            self._dismiss(i)

    def _dismiss(self, i: int) -> None:
        worker, self._workers[i] = self._workers[i], None
        if worker is not None:
            worker.close()

    def start(self, members: Sequence[int]) -> None:
        for i in members:
            if self._workers[i] is None:
                self._workers[i] = self._start(i)

    def call(self, i: int, row: Row, method: str, *arguments: object) -> object:
        """Call a worker's method; a failure goes into the row, and None comes back."""
        self.start([i])
        try:
            return self._workers[i].call(method, *arguments)
        except WorkerError as error:
            row.error = str(error)
            self._dismiss(i)
            return None


def _measure_memory(
    entries: Sequence[Entry], setting: Setting, table: list[list[Row]], log: Callable[[str], None]
) -> None:
    """Check what is ours, then measure the memory of all, one after the other."""
    with _Team(entries, setting, for_memory=True) as team:
        team.start(range(len(entries)))
        for i, rows in enumerate(zip(*table, strict=True)):
            log(f'{rows[0].label}: check')
            agreement = team.call(i, rows[0], 'check')
            for row in rows:
                row.error, row.agreement = rows[0].error, agreement
        for i, rows in enumerate(zip(*table, strict=True)):
            for row in rows:
                if row.error:
                    continue
                log(f'{row.label}: memory at {row.shape[0]}×{row.shape[1]}')
                built = team.call(i, row, 'prepare', row.shape)
                memory = None if row.error else team.call(i, row, 'memory')
                if not row.error:
                    row.parameters = built['parameters']
                    row.memory, row.memory_source = memory['bytes'], memory['source']
                    team.call(i, row, 'release')
                flops = None if row.error else team.call(i, row, 'count', row.shape)
                if isinstance(flops, str):
                    row.uncounted = flops
                else:
                    row.flops = flops


def _measure_time(
    entries: Sequence[Entry],
    setting: Setting,
    table: list[list[Row]],
    rounds: int,
    warmup: int,
    profile: bool,
    log: Callable[[str], None],
) -> None:
    order = random.Random(0)
    with _Team([*entries, None], setting, for_memory=False) as team:
        for rows in table:

            def alive(rows: list[Row] = rows) -> list[int]:
                return [i for i, row in enumerate(rows) if not row.error]

            log(f'time at {rows[0].shape[0]}×{rows[0].shape[1]}')
            probe = Row('matrix product', rows[0].shape, flops=2 * prod(PROBES[torch.device(setting.device).type]))
            team.start(alive())
            for i in alive():
                team.call(i, rows[i], 'prepare', rows[i].shape)
            team.call(len(rows), probe, 'prepare')
            for _ in range(warmup):
                for i in alive():
                    team.call(i, rows[i], 'step')
                if not probe.error:
                    team.call(len(rows), probe, 'step')
            for _ in range(rounds):
                turns = alive()
                order.shuffle(turns)
                for i in turns:
                    _take_step(team, i, rows[i])
                _take_step(team, len(rows), probe)
            if probe.error:
                log(f'{probe.label}: {probe.error}')
            for row in rows:
                row.peak_flops = probe.flops / probe.median if probe.median else None
            if profile:
                for i in alive():
                    rows[i].profile = team.call(i, rows[i], 'profile')
            for i in alive():
                team.call(i, rows[i], 'release')


def _take_step(team: _Team, i: int, row: Row) -> None:
    if row.error:
        return
    times = team.call(i, row, 'step')
    if not row.error:
        row.seconds.append(times[0])
        row.cpu_seconds.append(times[1])
