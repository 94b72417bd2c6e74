"""Verify the data sets of a config, of any of the three libraries, before training finds their faults.

Every file is read and decoded. Sizes, boxes, masks, categories and labels are held against the files, the config and
the model; the dataset's own filtering hides nothing. The exit code is 1 if there are faults; warnings do not count.

Example::

    python tools/misc/verify_dataset.py configs/mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py --out report.json
"""

import argparse
import json
import os
import sys
from pathlib import Path

from mmengine.config import Config

from mmstvit.apis import UserError, add_cfg_options, check_data, read_config, user_errors
from mmstvit.datasets.verify import verify

SPLITS = ('train', 'val', 'test')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file path')
    parser.add_argument(
        '--split', nargs='+', choices=SPLITS, metavar='SPLIT', help='of train, val and test; all that the config has'
    )
    parser.add_argument(
        '--num-workers', type=int, default=min(8, os.cpu_count() or 1), help='processes; 0: in this one (%(default)s)'
    )
    parser.add_argument('--out', type=Path, help='JSON file for the whole report')
    parser.add_argument('--show', type=int, default=5, metavar='N', help='name the first N of each kind (%(default)s)')
    add_cfg_options(parser)
    return parser.parse_args()


def find_splits(cfg: Config, asked: list[str] | None) -> list[str]:
    """The splits to look at: those asked for, or all that there are."""
    there = [split for split in SPLITS if cfg.get(f'{split}_dataloader') is not None]
    missing = [split for split in asked or () if split not in there]
    if missing:
        raise UserError(f'--split {" ".join(missing)}: the config has no {missing[0]}_dataloader.')
    if not there:
        raise UserError('the config has no dataloader: neither train_dataloader, val_dataloader nor test_dataloader.')
    return [split for split in there if not asked or split in asked]


def check_arguments(args: argparse.Namespace) -> None:
    for name in ('num_workers', 'show'):
        if getattr(args, name) < 0:
            raise UserError(f'--{name.replace("_", "-")} must be 0 or more, but got {getattr(args, name)}.')
    if args.out is not None and (args.out.is_dir() or not args.out.absolute().parent.is_dir()):
        raise UserError(f'--out {args.out} cannot be written: it must be a file in a folder that exists.')


def main() -> None:
    args = parse_args()
    with user_errors():
        check_arguments(args)
        cfg = read_config(args.config, args.cfg_options)
        splits = find_splits(cfg, args.split)
        check_data(cfg, *splits)
    report = verify(cfg, splits, args.num_workers)
    print('\n'.join(report.lines(args.show)))
    if args.out is not None:
        args.out.write_text(json.dumps(dict(config=args.config, **report.to_dict()), indent=2) + '\n')
        print(f'{args.out}: the whole report')
    sys.exit(1 if report.faults() else 0)


if __name__ == '__main__':
    main()
