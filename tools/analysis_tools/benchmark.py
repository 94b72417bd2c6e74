"""Time and memory of backbones, ours and others, in one interleaved run on one device."""

import argparse
import contextlib
import json
import shlex
import sys
from pathlib import Path

import torch

from mmstvit.analysis.backbones import NAMES, parse_entry
from mmstvit.analysis.benchmark import RATIOS, run
from mmstvit.analysis.report import as_dict, environment, format_peak, format_profile, format_table, plot
from mmstvit.analysis.worker import Setting
from mmstvit.apis import UserError, user_errors

EPILOG = f"""\
backbones:
  {', '.join(NAMES)},
  CONFIG.py or mmdet::FOLDER/CONFIG.py for the model.backbone of a config.
  naive-* is the published algorithm, as published, on the weights of stvit-*.

options of a backbone follow its name, each with a plus sign:
  stvit-small+compile               through torch.compile, as a whole and for each shape anew
  stvit-small+compile=True          its own switch, for images of any size
  stvit-small+deploy                after its switch_to_deploy()
  stvit-small+bf16                  in another precision than --dtype; % peak refers to that of --dtype
  stvit-small+with_cp=True          an argument of the backbone; a value is a Python literal, else a string
  stvit-small+stoken_size=8,4,2,1   a sequence

method:
  Every backbone has a process of its own. In every round each takes one step, in random order, while the others wait.
  Weights are those of seed 0, images are random. A step is a forward pass in evaluation mode or, with --mode train, a
  forward and backward pass and a step of AdamW in training mode. All stvit-* are first compared with the published
  algorithm on random weights; one that disagrees stops the run. CPU ms is the time that processors spent on a step:
  with one thread on CPU, much less than ms says that the machine was busy with something else. Memory is what a step
  adds at its peak to parameters, optimiser state and images: activations, gradients and workspace. It is measured in
  processes of its own; on CPU it is resident memory, with a malloc that gives every block of 64 KiB pages of its own,
  so that fragmentation of the heap (10-50 %, by chance) does not count. GFLOP is what a step computes: two operations
  for every multiply-accumulate of the forward pass, three times as many in training; what a backbone computes again
  does not count. % peak is how near that comes, per second, to a large matrix product in the same type and number of
  threads, which has a process of its own, too, and its turn after the backbones of every round.
"""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('entries', nargs='+', metavar='BACKBONE', help='what to measure; see below')
    parser.add_argument('--mode', choices=['inference', 'train'], default='inference', help='what a step is')
    parser.add_argument(
        '--dtype', choices=['fp32', 'bf16', 'fp16'], default='fp32', help='autocast below fp32; no TF32'
    )
    parser.add_argument('--compile', action='store_true', help='all of them through torch.compile')
    parser.add_argument(
        '--shape',
        type=int,
        nargs=2,
        action='append',
        metavar=('H', 'W'),
        help='height and width of the images, default 224 224; several times for several shapes',
    )
    parser.add_argument('--batch-size', type=int, default=1, help='images per step')
    parser.add_argument('--device', default='cpu', help='such as cpu or cuda:0')
    parser.add_argument('--rounds', type=int, default=20, help='steps to time of every backbone')
    parser.add_argument('--warmup', type=int, default=2, help='steps before them')
    parser.add_argument('--threads', type=int, help="threads of the CPU; default: PyTorch's")
    parser.add_argument('--baseline', metavar='BACKBONE', help='what ratios refer to; default: the first')
    parser.add_argument('--profile', action='store_true', help='also where a step spends its time')
    parser.add_argument('--json', metavar='FILE', help='write everything measured')
    parser.add_argument('--plot', metavar='FILE', help='draw it; bars for one shape, curves for several')
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    for name, least in (('batch_size', 1), ('rounds', 1), ('warmup', 0), ('threads', 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f'--{name.replace("_", "-")} must be {least} or more, but got {value}.')
    for shape in args.shape:
        if min(shape) < 1:
            raise UserError(f'--shape must be two positive numbers, but got {shape[0]} {shape[1]}.')
    if args.baseline is not None and args.baseline not in args.entries:
        raise UserError(f'--baseline must be one of the backbones, {args.entries}, but got {args.baseline!r}.')
    for file in (args.json, args.plot):
        if file and not Path(file).absolute().parent.is_dir():
            raise UserError(f'{file} cannot be written: its folder does not exist.')
    try:
        device = torch.device(args.device)
    except RuntimeError as error:
        raise UserError(
            f'--device must be a device of PyTorch such as cpu or cuda:0, but got {args.device}.'
        ) from error
    if device.type not in ('cpu', 'cuda') or (device.type == 'cuda' and not torch.cuda.is_available()):
        raise UserError(f'--device {args.device}: this machine, or this tool, does not have it; use cpu or cuda.')


def main() -> None:
    args = parse_args()
    args.shape = args.shape or [[224, 224]]
    # Libraries log to standard output; it is for the result.
    with user_errors(), contextlib.redirect_stdout(sys.stderr):
        check_args(args)
        entries = [parse_entry(text) for text in args.entries]
        baseline = args.entries.index(args.baseline) if args.baseline else 0
        setting = Setting(args.mode == 'train', args.dtype, args.compile, args.batch_size, args.device, args.threads)
        shapes = [tuple(shape) for shape in args.shape]
        table = run(
            entries, setting, shapes, args.rounds, args.warmup, args.profile, lambda text: print(text, file=sys.stderr)
        )
    command = shlex.join(['python', *sys.argv])
    where = environment(setting)
    print(f'command    {command}')
    for name, value in where.items():
        print(f'{name:<10} {value}')
    how = f'{args.mode}, {args.dtype}, {args.rounds} rounds, ± interquartile range'
    for rows in table:
        height, width = rows[0].shape
        print(f'\n{args.batch_size} × 3 × {height} × {width}, {how}')
        print(format_table(rows, baseline, args.batch_size))
        print(format_peak(rows, setting))
    print(f'\ntime × is {RATIOS["ratio_within_rounds"]}; baseline: {args.entries[baseline]}')
    for row in (row for rows in table for row in rows if row.profile):
        print(f'\n{row.label} at {row.shape[0]}×{row.shape[1]}, one step\n{format_profile(row)}')
    if args.json:
        settings = {key: value for key, value in vars(args).items() if key not in ('json', 'plot')}
        content = {'command': command, 'environment': where, 'settings': settings, **as_dict(table, baseline)}
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n')
    if args.plot:
        plot(table, f'{args.batch_size} images, {args.mode}, {args.dtype}, {args.device}', args.plot)


if __name__ == '__main__':
    main()
