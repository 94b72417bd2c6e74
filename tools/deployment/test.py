"""Test an exported file with the data and the evaluator of its config.

Example::

    python tools/deployment/test.py CONFIG model.onnx
"""

import argparse

from mmstvit.apis import add_common_arguments, add_trust, user_errors
from mmstvit.apis.prepare import prepare_exported, print_metrics


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file path or name')
    parser.add_argument('file', help='file of tools/deployment/export.py')
    parser.add_argument('--work-dir', help='the dir to save the file containing evaluation metrics')
    add_trust(parser)
    add_common_arguments(parser)
    return parser.parse_args()


def main() -> None:
    """Test the file and print its metrics."""
    with user_errors():
        metrics = prepare_exported(parse_args()).test()
    print_metrics(metrics)


if __name__ == '__main__':
    main()
