"""Write a config for a folder of your own images: instances, segments (label maps) or classes (folders).

The folder is recognized, and nothing in it is changed. The config inherits from one of ours and states what the data
decide. Without a split, a part of the images is for validation. Files that the config needs are written beside it.

Examples::

    python tools/new_config.py data/cutlery
    python tools/new_config.py data/cells --classes background nucleus --model small --weights stvit-small-224.pth
    python tools/new_config.py data/export/result.json --fix --out configs/mine.py --epochs 50
"""

import argparse
from pathlib import Path

from mmstvit.command_line import make_parser, user_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument(
        'data', type=Path, help='folder of the data; or a COCO annotation file, the YAML file of YOLO, or a table'
    )
    parser.add_argument('--out', type=Path, metavar='CONFIG', help='the config (default: MODEL_FOLDER.py here)')
    parser.add_argument(
        '--model',
        help='mask-rcnn, cascade-mask-rcnn, faster-rcnn, upernet or stvit, with or without -nano, -small, -base or '
        '-large; or a size alone (default: for the data; small with a GPU, else nano)',
    )
    parser.add_argument('--weights', metavar='FILE', help='published weights or a checkpoint, for the backbone')
    parser.add_argument('--epochs', type=int, metavar='N', help='length of the training run (default: by the data)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images per iteration (default: by the data)')
    parser.add_argument(
        '--val',
        metavar='FRACTION|PATH',
        help='part of the images for validation if the data have no split (0.2), or its annotation file or folder',
    )
    parser.add_argument('--task', choices=['instances', 'segments', 'classes'], help='if the data could be several')
    parser.add_argument(
        '--images', type=Path, metavar='FOLDER', help='the images of an annotation file or of label maps'
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        default=[],
        metavar='NAME',
        help='classes of label maps: names in the order of the values, VALUE=NAME or #RRGGBB=NAME pairs, or a file',
    )
    parser.add_argument('--ignore', nargs='+', default=[], metavar='VALUE', help='values of label maps without a class')
    parser.add_argument('--map-suffix', metavar='END', help='end of the names of the label maps, such as _labelIds.png')
    parser.add_argument(
        '--shapes', choices=['boxes', 'polygons'], help="lines of YOLO's labels: boxes with keypoints, or polygons"
    )
    parser.add_argument('--maps', type=Path, metavar='FOLDER', help='the label maps, if images have several')
    parser.add_argument('--skip-missing', action='store_true', help='train without images that are missing')
    parser.add_argument('--skip-stray', action='store_true', help='leave out images beside the folders of classes')
    parser.add_argument('--fix', action='store_true', help='repair annotations, in a copy beside the config')
    parser.add_argument('--dry-run', action='store_true', help='print the config, write nothing')
    parser.add_argument('--force', action='store_true', help='overwrite the config and the files beside it')
    return parser.parse_args()


def main() -> None:
    """Make the config, print what was found and the next commands."""
    args = parse_args()
    dry_run, force = (vars(args).pop(name) for name in ('dry_run', 'force'))
    with user_errors():
        from mmstvit.apis.new_config import Options, new_config

        config = new_config(Options(**vars(args)))
        if not dry_run:
            config.write(force)
        print('\n'.join(config.notes))
        if dry_run:
            print(f'\n{config.text}')
            return
        print(f'\nWrote {config.path}')
        for name in config.data.files:
            if '/' not in name:
                print(f'Wrote {config.path.with_name(f"{config.path.stem}_{name}")}')
        print('\nNext:')
        print('\n'.join(f'  {command}' for command in config.next_commands()))


if __name__ == '__main__':
    main()
