"""What a benchmark found, as text, JSON and a picture; and on what machine."""

import importlib.metadata
import os
import platform
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import sqrt
from pathlib import Path

import torch

from mmstvit.ops import describe

from .agreement import AUTOCAST_DTYPES
from .benchmark import RATIOS, Row
from .worker import PROBES, Setting

_PACKAGES = ('mmstvit', 'torch', 'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'triton')
# Environment variables that change how fast tensors are computed.
_VARIABLES = re.compile(r'(G?OMP|KMP|MKL|ONEDNN|DNNL|MALLOC|CUDA|CUBLAS|PYTORCH|TORCH|MMSTVIT)_|LD_PRELOAD')

_MIB = 2**20
_HEADER = ('backbone', 'M params', 'ms', '± ms', 'CPU ms', 'images/s', 'time ×', 'MiB', 'MiB ×', 'GFLOP', '% peak')


def environment(setting: Setting) -> dict[str, str]:
    """What times depend on besides the code: versions, processors, libraries, variables."""
    distributions = importlib.metadata.packages_distributions()
    versions = {name: importlib.metadata.version(distributions[name][0]) for name in _PACKAGES if name in distributions}
    variables = [f'{name}={value}' for name, value in sorted(os.environ.items()) if _VARIABLES.match(name)]
    found = {
        'software': ', '.join(f'{name} {version}' for name, version in versions.items()),
        'python': f'{platform.python_version()} on {platform.platform()}',
        'libraries': _libraries(),
        'cpu': f'{_cpu_name()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}',
        'threads': str(setting.threads or torch.get_num_threads()),
        'variables': ' '.join(variables) or 'none that matter',
    }
    found['backend'] = describe(setting.device, AUTOCAST_DTYPES.get(setting.dtype, torch.float32))
    if torch.device(setting.device).type == 'cuda':
        found['gpu'] = f'{torch.cuda.get_device_name(setting.device)}, cuDNN {torch.backends.cudnn.version()}'
    return found


def _cpu_name() -> str:
    cpuinfo = Path('/proc/cpuinfo')
    names = re.findall(r'^model name\s*: (.+)$', cpuinfo.read_text(), re.MULTILINE) if cpuinfo.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def _libraries() -> str:
    """BLAS, oneDNN, CUDA and cuDNN that PyTorch was built with."""
    text = torch.__config__.show()
    lines = re.findall(
        r'^\s*- (.*(?:Math Kernel|MKL-DNN|oneDNN|OpenBLAS|CUDA Runtime|CuDNN).*?)(?: \(Git.*)?$', text, re.M
    )
    blas = re.findall(r'BLAS_INFO=(\w+)', text)
    return ', '.join([*(f'BLAS {name}' for name in blas[:1]), *lines])


def as_dict(table: Sequence[Sequence[Row]], baseline: int) -> dict:
    """Everything measured, for JSON; times in seconds, memory in bytes."""
    return {
        'definitions': {
            **RATIOS,
            'seconds': 'one step per round; the same index is the same round',
            'cpu_seconds': 'time that processors spent on it, all threads together',
            'median, spread': 'of seconds; the spread is the interquartile range',
            'memory': 'bytes that a step adds at its peak to parameters, optimiser state and images',
            'flops': 'of a step: 2 per multiply-accumulate of the forward pass, 3 times as many in training',
            'peak_flops': 'per second, of a large matrix product: its flops / its median time in the same rounds',
            'peak_ratio': 'flops / median / peak_flops',
        },
        'baseline': table[0][baseline].label,
        'results': [
            {
                **asdict(row),
                'median': row.median,
                'spread': row.spread,
                **{name: row.ratios(rows[baseline]).get(name) for name in RATIOS},
                'memory_ratio': row.memory_ratio(rows[baseline]),
                'peak_ratio': row.peak_ratio,
            }
            for rows in table
            for row in rows
        ],
    }


def format_table(rows: Sequence[Row], baseline: int, batch_size: int) -> str:
    """The rows of one shape as text; ``time ×`` is the median of the ratios within rounds."""
    lines = [_HEADER]
    notes = []
    for row in rows:
        ratio = row.ratios(rows[baseline]).get('ratio_within_rounds')
        memory = None if row.memory is None else row.memory / _MIB
        lines.append(
            (
                row.label,
                _number(row.parameters and row.parameters / 1e6, 2),
                _number(row.median and row.median * 1e3, 1),
                _number(row.spread and row.spread * 1e3, 1),
                _number(statistics.median(row.cpu_seconds) * 1e3 if row.median and row.cpu_seconds else None, 1),
                _number(row.median and batch_size / row.median, 2),
                _number(ratio, 3),
                _number(memory, 0),
                _number(row.memory_ratio(rows[baseline]), 3),
                _number(row.flops and row.flops / 1e9, 2),
                _number(row.peak_ratio and row.peak_ratio * 100, 1),
            )
        )
        if row.error:
            notes.append(f'{row.label}: {row.error}')
        if row.uncounted:
            notes.append(f'{row.label}: its operations cannot be counted: {row.uncounted}')
        if row.agreement:
            errors = ', '.join(f'{kind} {error:.1e}' for kind, error in row.agreement.items())
            notes.append(f'{row.label} agrees with the published algorithm; largest errors: {errors}')
    return '\n'.join([*_align(lines), *notes])


def format_peak(rows: Sequence[Row], setting: Setting) -> str:
    """The peak that the rows of one shape are compared with, as text."""
    m, k, n = PROBES[torch.device(setting.device).type]
    peak = rows[0].peak_flops
    return (
        f'peak  {_number(peak and peak / 1e9, 1)} GFLOP/s: a matrix product of {m}×{k} by {k}×{n} in {setting.dtype} '
        'in the same rounds'
    )


def format_profile(row: Row) -> str:
    """Where a step of a backbone spends its time, as text."""
    stages = [('part', 'forward ms', 'backward ms')]
    for stage in row.profile['stages']:
        stages.append((stage['name'], *(_number(stage[key] or None, 1) for key in ('forward_ms', 'backward_ms'))))
    operators = [('operator', 'calls', 'ms')]
    operators += [(o['name'], str(o['calls']), _number(o['ms'], 1)) for o in row.profile['operators']]
    return '\n'.join([*_align(stages), '', *_align(operators)])


def _number(value: float | None, digits: int) -> str:
    return '–' if value is None else f'{value:.{digits}f}'


def _align(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for name, *numbers in lines:
        yield '  '.join([f'{name:<{widths[0]}}', *(f'{n:>{w}}' for n, w in zip(numbers, widths[1:], strict=True))])


def plot(table: Sequence[Sequence[Row]], title: str, file: str) -> None:
    """Draw time and memory: bars for one shape, curves over the side of the image for several.

    Args:
        table: Rows by shape.
        title: Of the picture.
        file: Where to write it; the suffix says what it is.
    """
    from matplotlib.figure import Figure  # without pyplot: no display, no state

    figure = Figure(figsize=(12, 5), layout='constrained')
    panels = figure.subplots(1, 2)
    figure.suptitle(title)
    values = {
        'time of a step, ms': lambda row: row.median and row.median * 1e3,
        'peak memory of a step, MiB': lambda row: row.memory and row.memory / _MIB,
    }
    for panel, (name, value) in zip(panels, values.items(), strict=True):
        if len(table) == 1:
            rows = table[0]
            bars = panel.barh([row.label for row in rows], [value(row) or 0 for row in rows])
            panel.bar_label(bars, [_number(value(row), 1) for row in rows], padding=2)
            panel.margins(x=0.15)
            panel.invert_yaxis()
            panel.set_xlabel(name)
        else:
            for rows in zip(*table, strict=True):
                points = sorted((sqrt(row.shape[0] * row.shape[1]), value(row)) for row in rows if value(row))
                panel.plot([side for side, _ in points], [y for _, y in points], marker='o', label=rows[0].label)
            panel.set_xlabel('side of the image, √(H·W)')
            panel.set_ylabel(name)
            # Straight lines where cost grows with a power of the side: 2 with the tokens, 4 with their pairs.
            panel.set_xscale('log', base=2)
            panel.set_yscale('log')
            sides = sorted({sqrt(rows[0].shape[0] * rows[0].shape[1]) for rows in table})
            panel.set_xticks(sides, [f'{side:.0f}' for side in sides])
            panel.minorticks_off()
            panel.grid(alpha=0.3)
            panel.legend()
    figure.savefig(file, dpi=120)
