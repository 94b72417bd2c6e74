"""Run on a machine with a GPU what this project has to show there, and write one report.

``make gpu`` calls it: the doctor, the tests that need a GPU, and a training run of each family with mixed precision and
the Triton kernels on the bundled scenes, all at the same time; with two GPUs also a run in two processes; then the
benchmarks, one after the other. The exit code is 1 if a step failed.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mmstvit.command_line import make_parser
from mmstvit.version import __version__

ROOT = Path(__file__).resolve().parents[2]
FAMILIES = (
    'mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes',
    'cascade_mask_rcnn/cascade-mask-rcnn_stvit-nano_fpn_scenes',
    'upernet/stvit-nano_upernet_scenes',
    'imagenet/stvit-nano_scenes',
)
BACKENDS = ' '.join(f'stvit-small+MMSTVIT_BACKEND={name}' for name in ('fused', 'torch'))
ENTRIES = f'stvit-small {BACKENDS} naive-small swin-tiny --device cuda'
BENCHMARKS = {
    'inference, fp16, 256×224²': '--batch-size 256 --dtype fp16 --rounds 10',
    'training, bf16, 64×224²': '--batch-size 64 --mode train --dtype bf16 --rounds 10',
    'training, bf16, 2×800×1333': '--batch-size 2 --shape 800 1333 --mode train --dtype bf16 --rounds 10',
}
TAIL = 40  # lines of a step's output in the report


def list_steps(work_dir: Path, gpus: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the name and the command of every step."""
    python = sys.executable
    yield 'doctor', [python, '-m', 'mmstvit.doctor']
    yield 'tests', [python, '-m', 'pytest', '-m', 'gpu', '-n', '0', '-q']
    for family in FAMILIES:
        folder = work_dir / Path(family).name
        yield f'train: {family}', [python, 'tools/train.py', f'configs/{family}.py', '--amp', '--work-dir', str(folder)]
    if gpus > 1:
        command = ['tools/dist_train.sh', f'configs/{FAMILIES[0]}.py', '2', '--amp', '--work-dir']
        yield 'train: two processes', [*command, str(work_dir / 'two_processes')]
    for name, options in BENCHMARKS.items():
        benchmark = [python, 'tools/analysis_tools/benchmark.py']
        yield f'benchmark: {name}', [*benchmark, *ENTRIES.split(), *options.split()]


def run_step(step: tuple[str, list[str]]) -> tuple[str, float, str]:
    """Run a command; returns ``'passed'`` or ``'FAILED'``, the seconds, and the end of its output."""
    name, command = step
    env = {**os.environ, 'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    start = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, env=env, **pipes)
    result, seconds = 'FAILED' if done.returncode else 'passed', time.monotonic() - start
    print(f'{name}: {result} in {seconds:.0f} s', flush=True)
    return result, seconds, '\n'.join(done.stdout.splitlines()[-TAIL:])


def run_steps(steps: list[tuple[str, list[str]]]) -> Iterator[tuple[str, float, str]]:
    """Run the benchmarks one by one, after all other steps, which run at the same time; yields results in order."""
    others = [step for step in steps if not step[0].startswith('benchmark')]
    with ThreadPoolExecutor(len(others)) as pool:
        yield from pool.map(run_step, others)
    yield from map(run_step, steps[len(others) :])


def write_report(report: Path, subject: str, steps: list[tuple[str, list[str]]]) -> bool:
    """Run all steps and write the report, after each step anew; returns True if every step passed."""
    head = f'# mmstvit on a GPU\n\n{subject}\n\n| step | result | seconds |\n|---|---|---|'
    rows, outputs, failed = [], [], []
    for (name, command), (result, seconds, output) in zip(steps, run_steps(steps), strict=True):
        rows.append(f'| {name} | {result} | {seconds:.0f} |')
        outputs.append(f'\n## {name}\n\n`{" ".join(command)}`\n\n```\n{output}\n```')
        failed += [name] if result == 'FAILED' else []
        verdict = f'Failed: {", ".join(failed)}.' if failed else f'{len(rows)} of {len(steps)} steps passed.'
        report.write_text('\n'.join([head, *rows, f'\n{verdict}', *outputs, '']))
    print(f'{verdict}\nreport: {report}')
    return not failed


def main() -> int:
    """Run all steps and write the report."""
    parser = make_parser(__doc__)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'gpu', help='folder of runs and report')
    args = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        sys.exit('error: PyTorch finds no CUDA GPU on this machine. Run: python -m mmstvit.doctor')
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    args.work_dir.mkdir(parents=True, exist_ok=True)
    git = ['git', 'describe', '--always', '--dirty']
    commit = shutil.which('git') and subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    subject = f'{time.strftime("%Y-%m-%d")}: mmstvit {__version__} (commit {commit or "unknown"}), '
    subject += f'{", ".join(gpus)}, torch {torch.__version__}'
    steps = list(list_steps(args.work_dir, len(gpus)))
    return int(not write_report(args.work_dir / 'report.md', subject, steps))


if __name__ == '__main__':
    sys.exit(main())
