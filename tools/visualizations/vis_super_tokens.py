r"""Draw the super tokens of images block by block, and the attention of a point.

Writes a contact sheet per image: a row per block with boundaries, mean colors and regions. Examples::

    python tools/visualizations/vis_super_tokens.py work_dirs/RUN/epoch_12.pth photo.jpg --point 320 200
    python tools/visualizations/vis_super_tokens.py configs/imagenet/stvit-small_8xb128_in1k.py photos/ \
        --checkpoint stvit-small-224.pth
"""

import argparse
import sys
from pathlib import Path

from mmstvit.command_line import (
    CONFIG_SUFFIXES,
    add_cfg_options,
    add_device,
    add_trust,
    count,
    make_parser,
    order_arguments,
    user_errors,
)
from mmstvit.errors import one_line


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('model', metavar='MODEL', help='checkpoint with its config in it, or a config')
    parser.add_argument('images', metavar='IMAGE', help='image, folder or glob pattern')
    parser.add_argument('--config', help='config of the checkpoint (the one in it)')
    parser.add_argument('--checkpoint', help='checkpoint of the config (none: the model is untrained)')
    parser.add_argument('--out-dir', type=Path, default='super_tokens', help='folder, new or empty (super_tokens)')
    parser.add_argument('--stages', type=count, nargs='+', help='stages, from 0 (all)')
    parser.add_argument('--blocks', type=count, nargs='+', help='blocks of each stage, from 0 (all)')
    parser.add_argument('--point', type=int, nargs=2, metavar=('X', 'Y'), help='attention of this pixel of the image')
    parser.add_argument(
        '--soft', nargs='?', const='point', metavar='INDEX', help='membership of a super token (that at the point)'
    )
    parser.add_argument('--grid', action='store_true', help='draw the initial grid too')
    parser.add_argument('--single', action='store_true', help='one PNG per drawing instead of a contact sheet')
    parser.add_argument('--gif', action='store_true', help='write an animation over the blocks too')
    add_device(parser)
    add_cfg_options(parser)
    add_trust(parser)
    args = parser.parse_args()
    model, (args.images,) = order_arguments(args.__dict__.pop('model'), [args.images])
    kind = 'config' if Path(model).suffix in CONFIG_SUFFIXES else 'checkpoint'
    if getattr(args, kind) is not None:
        parser.error(f'two {kind}s are given: {model} and {getattr(args, kind)}')
    setattr(args, kind, model)
    if args.soft is not None and args.soft != 'point':
        if not args.soft.isdecimal():
            parser.error(f'--soft needs the index of a super token, but got {args.soft!r}')
        args.soft = int(args.soft)
    if args.soft == 'point' and args.point is None:
        parser.error('--soft needs --point, or the index of a super token')
    return args


def main() -> None:
    """Draw, and name what was skipped."""
    args = vars(parse_args())
    args['trust'] = args.pop('trust_checkpoint')
    with user_errors():
        from mmstvit.apis.super_tokens import UNTRAINED, draw_super_tokens

        skipped = draw_super_tokens(**args)
    if args['checkpoint'] is None:
        print(f'{UNTRAINED}. Name a checkpoint with --checkpoint FILE.')
    if args['out_dir'].exists():
        print(f'drawings: {args["out_dir"]}')
    for name, reason in skipped.items():
        print(one_line(f'skipped {name}: {reason}'), file=sys.stderr)
    if skipped:
        sys.exit(f'error: {len(skipped)} of the inputs could not be drawn')


if __name__ == '__main__':
    main()
