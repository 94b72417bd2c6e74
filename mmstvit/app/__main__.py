"""Serve a page on which a model is tried, for a browser on this machine."""

import argparse
import ipaddress
import signal
import sys
import tempfile
from pathlib import Path

from mmstvit.command_line import add_device, make_parser, user_errors
from mmstvit.errors import UserError


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


def is_local(host: str) -> bool:
    """Return True for an address that only this machine can reach."""
    try:
        return host == 'localhost' or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Serve until Ctrl+C."""
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the cache is removed, as with Ctrl+C
    with user_errors(), tempfile.TemporaryDirectory(prefix='mmstvit-app-') as cache:
        try:
            from .page import serve
            from .service import Service
        except ModuleNotFoundError as error:
            if error.name != 'gradio':
                raise
            raise UserError('The page needs Gradio, which is not installed.', 'Run: pip install gradio') from error
        page = serve(Service(args.dir, args.device, args.max_bytes, args.max_pixels), args.host, args.port, cache)
        print(f'The page is at http://{args.host}:{args.port} (Ctrl+C stops it)', flush=True)
        if not is_local(args.host):
            print(
                'Anyone who can reach this machine in the network can use it: there is no password and no encryption.\n'
                f'They can run every checkpoint in {args.dir} on images of theirs, and see the names of the runs.',
                flush=True,
            )
        page.block_thread()


if __name__ == '__main__':
    main()
