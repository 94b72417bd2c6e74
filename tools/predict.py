"""Predict images, folders, glob patterns and videos with the model of a checkpoint; no annotations are needed.

A detector writes ``predictions.json`` (COCO, masks as RLE), a segmentor maps and ``legend.csv``, a classifier
``predictions.csv``; each also ``pictures/``. The config is that in the checkpoint, or ``--config``. An
exported file (.onnx, .xml) may take the place of a checkpoint.
"""

import argparse
import os
import sys

from mmstvit.command_line import (
    add_cfg_options,
    add_device,
    add_trust,
    count,
    make_parser,
    order_arguments,
    positive,
    user_errors,
)
from mmstvit.errors import UserError, one_line


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('checkpoint', help='checkpoint file, or exported file')
    parser.add_argument('inputs', nargs='+', metavar='INPUT', help='image, folder, glob pattern or video')
    parser.add_argument('--out-dir', default='predictions', help='folder for the results (predictions)')
    parser.add_argument('--config', help='config file path or name (the config in the checkpoint)')
    parser.add_argument('--score', type=float, help='lowest score of instances (0.3) or classes (0)')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument('--batch-size', type=positive, default=1, help='images of equal size predicted together (1)')
    parser.add_argument('--tile', type=positive, metavar='SIZE', help='predict large images in tiles of SIZE pixels')
    parser.add_argument('--overlap', type=count, metavar='N', help='pixels that tiles share (a quarter of SIZE)')
    again = parser.add_mutually_exclusive_group()
    again.add_argument('--force', action='store_true', help='begin anew: remove earlier results in --out-dir')
    again.add_argument('--continue', dest='resume', action='store_true', help='predict what is missing in --out-dir')
    add_device(parser)
    add_cfg_options(parser)
    add_trust(parser)
    return parser.parse_args()


def main() -> None:
    """Predict, and name what was skipped."""
    args = vars(parse_args())
    args['trust'] = args.pop('trust_checkpoint')
    args['checkpoint'], args['inputs'] = order_arguments(args['checkpoint'], args['inputs'])
    with user_errors():
        from mmstvit.apis import predict

        summary = predict(**args)
        if os.environ.get('RANK', '0') != '0':  # with torchrun, one process speaks for all
            return
        if summary.ignored:
            others = ', '.join(f'{count} {suffix}' for suffix, count in summary.ignored.most_common(5))
            print(one_line(f'other files in the folders: {others}'))
        print(f'{summary.count} predictions: {summary.folder / summary.file}, pictures: {summary.folder / "pictures"}')
        if summary.note:
            print(summary.note)
        for name, reason in summary.skipped.items():
            print(one_line(f'skipped {name}: {reason}'), file=sys.stderr)
        if summary.skipped:
            raise UserError(f'{len(summary.skipped)} images or frames could not be predicted.')


if __name__ == '__main__':
    main()
