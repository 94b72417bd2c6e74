"""Test (and evaluate) a detector, segmentor or classifier; the config's ``default_scope`` decides which."""

import argparse

from mmstvit.command_line import add_common_arguments, add_ignore, add_trust, make_parser, order_config, user_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='test config file path, or its name such as mmstvit::imagenet/NAME.py')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='the dir to save the file containing evaluation metrics')
    parser.add_argument(
        '--out', help='detection and classification: pickle file for the predictions; segmentation: folder for them'
    )
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument(
        '--show-dir', help='folder for pictures of the predictions, one for each image, with its path below the data'
    )
    parser.add_argument('--wait-time', type=float, default=2, help='display time of every window in seconds')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    add_trust(parser)
    add_ignore(parser)
    add_common_arguments(parser)
    return order_config(parser.parse_args())


def main() -> None:
    """Test a checkpoint and print its metrics."""
    args = parse_args()
    with user_errors():
        from mmstvit.apis.prepare import prepare, print_metrics
        from mmstvit.checkpoint import to_mmstvit
        from mmstvit.fileio import safe_loading

        with safe_loading(args.trust_checkpoint, to_mmstvit):
            metrics = prepare(args, 'test').test()
    print_metrics(metrics)


if __name__ == '__main__':
    main()
    from mmstvit.apis import leave_process_group

    leave_process_group()
