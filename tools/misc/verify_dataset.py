"""Verify the data sets of a config, of MMDetection, MMSegmentation or MMPreTrain, before training.

The rules are those that are asked before a training run; in addition every file is read and decoded, and compared with
its annotations. The exit code is 1 if there are faults, 0 if there are warnings only.

Example::

    python tools/misc/verify_dataset.py configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py --out report.json
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mmstvit.command_line import add_cfg_options, add_ignore, count, make_parser, user_errors
from mmstvit.errors import UserError

if TYPE_CHECKING:
    from mmengine.config import Config

SPLITS = ('train', 'val', 'test')
BEGIN = '{\n  "config": '  # of a report


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--split', nargs='+', choices=SPLITS, metavar='SPLIT', help='train, val, test (default: all in the config)'
    )
    parser.add_argument(
        '--num-workers',
        type=count,
        default=min(8, os.cpu_count() or 1),
        help='number of processes; 0 is this process (%(default)s)',
    )
    parser.add_argument('--out', type=Path, help='write the whole report to this JSON file')
    parser.add_argument(
        '--show', type=count, default=5, metavar='N', help='print the first N examples of each finding (%(default)s)'
    )
    add_ignore(parser)
    add_cfg_options(parser)
    return parser.parse_args()


def find_splits(cfg: 'Config', asked: list[str] | None) -> list[str]:
    """Find the splits to verify: those that were asked for, or all splits of the config."""
    splits = [split for split in SPLITS if cfg.get(f'{split}_dataloader') is not None]
    missing = [split for split in asked or () if split not in splits]
    if missing:
        raise UserError(f'--split {" ".join(missing)}: the config has no {missing[0]}_dataloader.')
    if not splits:
        raise UserError('The config has no data set: no train_dataloader, val_dataloader or test_dataloader.')
    return [split for split in splits if not asked or split in asked]


def check_output(out: Path) -> None:
    """Check that the report can be written, and that a file that it replaces is an earlier report; raises UserError."""
    if not out.absolute().parent.is_dir() or (out.exists() and not out.is_file()):
        raise UserError(f'--out {out} cannot be written.', 'Name a file in a folder that exists.')
    if out.exists() and not out.read_bytes().startswith(BEGIN.encode()):
        raise UserError(f'--out {out} exists, and is not a report.', 'Choose another name.')


def main() -> None:
    """Verify the data sets, print the report and exit with 1 if there are faults."""
    args = parse_args()
    with user_errors():
        from mmstvit.apis import check_data, read_config
        from mmstvit.fileio import write_atomically
        from mmstvit.rules import check, ignore_kinds

        if args.out is not None:
            check_output(args.out)
        cfg = read_config(args.config, args.cfg_options)
        splits = find_splits(cfg, args.split)
        ignore_kinds(cfg, args.ignore)
        check_data(cfg, *splits)
        report = check(cfg, splits, complete=True, num_workers=args.num_workers)
        print('\n'.join(report.lines(args.show)))
        if args.out is not None:
            text = json.dumps(dict(config=args.config, **report.to_dict()), indent=2) + '\n'
            write_atomically(text.encode(), args.out)
            print(f'Wrote the whole report to {args.out}.')
    sys.exit(1 if report.faults else 0)


if __name__ == '__main__':
    main()
