"""Test an exported file with the data and the evaluator of its config.

Example::

    python tools/deployment/test.py CONFIG model.onnx
"""

import argparse

from mmstvit.command_line import add_common_arguments, make_parser, order_config, user_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__)
    parser.add_argument('config', help='config file path or name')
    parser.add_argument('file', help='exported file (.onnx, .xml)')
    parser.add_argument('--work-dir', help='the dir to save the file containing evaluation metrics')
    add_common_arguments(parser)
    return order_config(parser.parse_args(), 'file')


def main() -> None:
    """Test the file and print its metrics."""
    args = parse_args()
    with user_errors():
        from mmstvit.apis.prepare import prepare_exported, print_metrics

        metrics = prepare_exported(args).test()
    print_metrics(metrics)


if __name__ == '__main__':
    main()
