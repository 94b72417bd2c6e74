"""Serve a page on which a model is tried, for a browser on this machine."""

import argparse
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from mmstvit.command_line import add_device, make_parser, positive, user_errors
from mmstvit.errors import UserError


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = make_parser(__doc__, prog='mmstvit app')
    parser.add_argument('--host', default='127.0.0.1', help='address of this machine at which the page is served')
    parser.add_argument('--port', type=int, default=7860, help='port (7860)')
    parser.add_argument('--dir', type=Path, default=Path('work_dirs'), help='folder of the checkpoints (work_dirs)')
    add_device(parser)
    parser.add_argument('--max-bytes', type=positive, default=64 << 20, help='largest image file (64 MiB)')
    return parser.parse_args()


def main() -> None:
    """Serve until Ctrl+C."""
    args = parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the uploads are removed, as with Ctrl+C
    with user_errors(), tempfile.TemporaryDirectory(prefix='mmstvit-app-') as folder:
        from .server import Server
        from .service import Service
        from .uploads import Uploads

        if not args.dir.is_dir():
            raise UserError(f'The folder {args.dir} does not exist.', 'Run make demo, or name a folder with --dir.')
        uploads, service = Uploads(Path(folder)), Service(args.dir, args.device)
        server = Server((args.host, args.port), service, uploads, args.max_bytes)
        host = f'[{args.host}]' if ':' in args.host else args.host
        print(f'The page is at http://{host}:{server.server_port} (Ctrl+C stops it)', flush=True)
        if args.host not in ('127.0.0.1', '::1', 'localhost'):
            print(
                'Anyone who can reach this machine in the network can use it: there is no password and no encryption.\n'
                f'They can run every checkpoint in {args.dir} on images of theirs, and see the names of the runs.',
                flush=True,
            )
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == '__main__':
    main()
