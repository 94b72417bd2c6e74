"""Serve a page on which a model is tried, for a browser on this machine."""

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from mmstvit.command_line import add_device, make_parser, user_errors


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, prog='mmstvit app')
    parser.add_argument('--host', default='127.0.0.1', help='address of this machine at which the page is served')
    parser.add_argument('--port', type=int, default=7860, help='port (7860)')
    parser.add_argument('--dir', type=Path, default=Path('work_dirs'), help='folder of the checkpoints (work_dirs)')
    add_device(parser)
    parser.add_argument('--max-bytes', type=int, default=20 << 20, help='largest image file (20 MiB)')
    parser.add_argument('--max-pixels', type=int, default=16 << 20, help='largest image (16 million pixels)')
    return parser.parse_args()


def main() -> None:
    """Serve until Ctrl+C."""
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the cache is removed, as with Ctrl+C
    with user_errors(), tempfile.TemporaryDirectory(prefix='mmstvit-app-') as cache:
        from mmstvit.dependencies import require

        require('gradio', '6.31', 'pip install "gradio>=6.31,<7"')
        from .page import serve

        page = serve(args, Path(cache))
        print(f'The page is at http://{args.host}:{args.port} (Ctrl+C stops it)', flush=True)
        if args.host not in ('127.0.0.1', '::1', 'localhost'):
            print(
                'Anyone who can reach this machine in the network can use it: there is no password and no encryption.\n'
                f'They can run every checkpoint in {args.dir} on images of theirs, and see the names of the runs.',
                flush=True,
            )
        page.block_thread()


if __name__ == '__main__':
    main()
