"""Train a detector, segmentor or classifier; the config's ``default_scope`` decides which."""

import argparse

from mmstvit.command_line import add_common_arguments, add_ignore, add_trust, make_parser, user_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='train config file path, or its name such as mmstvit::imagenet/NAME.py')
    parser.add_argument('--work-dir', help='the dir to save logs and models')
    parser.add_argument('--amp', action='store_true', help='enable automatic-mixed-precision training')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help="scale the learning rate to the batch, by the config's base batch"
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint; without a path, from the latest one in the work dir',
    )
    add_trust(parser)
    add_ignore(parser)
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Train, unless the run to resume is finished."""
    args = parse_args()
    with user_errors():
        from mmstvit.apis import prepare
        from mmstvit.checkpoint import to_mmstvit
        from mmstvit.fileio import safe_loading

        with safe_loading(args.trust_checkpoint, to_mmstvit):
            runner = prepare(args, 'train')
            if runner is not None:
                runner.train()


if __name__ == '__main__':
    main()
    from mmstvit.apis import leave_process_group

    leave_process_group()
