"""The web server of the page: a few fixed addresses, for browsers on this machine."""

import base64
import contextlib
import ipaddress
import json
import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np

from mmstvit.apis.predict.run import skip_reason
from mmstvit.errors import UserError

from .service import Service
from .uploads import Uploads

HERE = Path(__file__).parent
FILES = {
    '/': ('page.html', 'text/html'),
    '/page.css': ('page.css', 'text/css'),
    '/page.js': ('page.js', 'text/javascript'),
    '/how_it_works': ('../../docs/how_it_works.md', 'text/plain'),  # in a checkout
}
EXAMPLES = Path('data/scenes/coco/val')
MAX_REQUEST = 64 << 10  # bytes of a request that is no image
MAX_DIGITS = 15  # of a length: Python reads no number of thousands of digits
BODY_SECONDS = 60  # in which a request must arrive, however its bytes trickle in
MAX_CALLS = 16  # at a time; they wait for each other
MAX_FILES = 4  # of the largest size, which all requests may hold in memory
BUSY = dict(error='Too many requests at a time. Try again.')
# The page loads nothing from elsewhere, runs no code but page.js, and is shown in no frame.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
POLICY += "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
RELOAD = 'Reload the page.'
logger = logging.getLogger('mmstvit.app')


def _is_index(value: object) -> bool:
    return type(value) is int and 0 <= value < 1000


def _is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # False for NaN


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_share, value))


# What a prediction needs.
WANTED = dict(
    image=('the key of an image', lambda value: isinstance(value, str)),
    model=('the path of a checkpoint', lambda value: isinstance(value, str)),
    stage=('a number from 0', _is_index),
    block=('a number from 0', _is_index),
    score=('a number from 0 to 1', _is_share),
    point=('two numbers from 0 to 1', _is_point),
)


class Server(ThreadingHTTPServer):
    """The server; call ``serve_forever()``.

    Args:
        address: Host and port.
        service: Models.
        uploads: Images.
        max_bytes: Size of the largest image file.

    Raises:
        UserError: The page cannot be served there.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], service: Service, uploads: Uploads, max_bytes: int) -> None:
        self.service, self.uploads, self.max_bytes = service, uploads, max_bytes
        self.calls = threading.Semaphore(MAX_CALLS)
        self._held, self._lock = 0, threading.Lock()
        self.address_family = socket.AF_INET6 if ':' in address[0] else socket.AF_INET
        try:
            super().__init__(address, Handler)
        except (OSError, OverflowError) as error:  # OverflowError: no such port
            raise UserError(
                f'The page cannot be served at {address[0]}:{address[1]}: the port is in use or not allowed, '
                'or this machine does not have the address.',
                'Choose another --port or --host.',
            ) from error
        self.hosts = {address[0].lower(), 'localhost', socket.gethostname().lower()}

    def handle_error(self, request: object, client_address: object) -> None:
        """Report a fault of a connection; a browser that has gone is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def hold(self, count: int) -> bool:
        """Count bytes of requests that are kept in memory; return False, without counting them, if they are too many.

        Args:
            count: Number of bytes; negative for those that are no longer kept.
        """
        with self._lock:
            fits = self._held + count <= MAX_FILES * self.max_bytes
            self._held += count if fits else 0
            return fits

    def is_own(self, host: str) -> bool:
        """Return True if a host, as a browser names it, is this machine.

        A name of a stranger may lead to this machine, too (DNS rebinding); an address can not.
        """
        try:
            name = (urlsplit(f'//{host}').hostname or '').lower()
            return name in self.hosts or bool(ipaddress.ip_address(name))
        except ValueError:
            return False


class Handler(BaseHTTPRequestHandler):
    """Answers to requests."""

    server: Server
    timeout = 60  # seconds in which a browser must send or take data
    server_version, sys_version = 'mmstvit', ''

    def do_GET(self) -> None:
        """Send a file of the page, the list of models, or an example."""
        path = self.path.partition('?')[0]
        if not self._is_allowed():
            return
        if path == '/models':
            self._send_json(dict(folder=str(self.server.service.folder), models=self.server.service.checkpoints()))
        elif path == '/examples':
            self._send_json([file.name for file in _examples()])
        elif path in FILES and (HERE / FILES[path][0]).is_file():
            self._send((HERE / FILES[path][0]).read_bytes(), f'{FILES[path][1]}; charset=utf-8')
        elif example := next((file for file in _examples() if path == f'/examples/{file.name}'), None):
            self._send(example.read_bytes(), 'image/jpeg')
        else:
            self._refuse(404, 'There is no such page.')

    def do_POST(self) -> None:
        """Keep an image, or predict one."""
        if not self._is_allowed():
            return
        upload, length = self.path == '/images', self.headers.get('Content-Length', '')
        limit = self.server.max_bytes if upload else MAX_REQUEST
        if not upload and self.path != '/predict':
            return self._refuse(404, 'There is no such page.')
        if not length.isdecimal():
            return self._refuse(411, 'The request does not say how long it is. Send it with a Content-Length.')
        if len(length) > MAX_DIGITS or int(length) > limit:
            what = 'file' if upload else 'request'
            return self._refuse(413, f'The {what} is larger than {limit / 2**20:g} MiB{" (--max-bytes)" * upload}.')
        content = bytearray()
        try:
            status, answer = self._read(content, int(length), upload) or self._call(content, upload)
        finally:
            if upload:
                self.server.hold(-len(content))
            del content
        self._send_json(answer, status)  # may take as long as the browser likes: no call waits for it

    def _read(self, content: bytearray, length: int, upload: bool) -> tuple[int, dict] | None:
        """Read the body of a request; return the answer if it does not arrive in time, or if too many are in memory.

        Only uploads count: the others are small, and shall not wait for uploads that stall.
        """
        received, fits, end = 0, True, time.monotonic() + BODY_SECONDS
        with contextlib.suppress(OSError):
            while received < length and (left := end - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not (part := self.rfile.read1(min(length - received, 1 << 20))):
                    break
                received += len(part)
                fits = fits and (not upload or self.server.hold(len(part)))
                if fits:
                    content += part
                else:  # the rest is read, so that the browser reads the answer
                    self.server.hold(-len(content))
                    content.clear()
        self.connection.settimeout(self.timeout)
        if received < length:
            self.close_connection = True
            return 408, dict(error=f'The {length} bytes did not arrive within {BODY_SECONDS} seconds. Try again.')
        return None if fits else (503, BUSY)

    def _call(self, content: bytes, upload: bool) -> tuple[int, dict]:
        """Keep an image, or predict one; return a status and the answer."""
        if not self.server.calls.acquire(blocking=False):
            return 503, BUSY
        try:
            return 200, self._keep(content) if upload else self._predict(content)
        except Exception as error:  # models and pipelines raise all kinds of errors
            text = str(error)
            if not isinstance(error, UserError):
                logger.exception('A call of the page failed.')
                text = f'That failed: {skip_reason(error)} (details are in the log of the server)'
            return 400, dict(error=text)
        finally:
            self.server.calls.release()

    def _keep(self, content: bytes) -> dict:
        """Keep an image."""
        key = self.server.uploads.add(content, unquote(self.headers.get('X-Name', 'the image'))[:200])
        return dict(key=key, note=self.server.uploads.get(key).note)

    def _predict(self, content: bytes) -> dict:
        """Predict an image, and draw the maps of a block."""
        wanted = _read_wanted(content)
        image = self.server.uploads.get(wanted['image'])
        view = self.server.service.look(wanted['model'], image, tuple(wanted['point']))
        drawn = view.draw(wanted['stage'], wanted['block'], wanted['score'])
        pictures = {name: _encode(value) for name, value in drawn.items() if isinstance(value, np.ndarray)}
        return drawn | pictures

    def _is_allowed(self) -> bool:
        """Refuse names of other machines, and requests from pages of others."""
        host, origin = self.headers.get('Host', ''), self.headers.get('Origin')
        if self.server.is_own(host) and origin in (None, f'http://{host}'):
            return True
        self._refuse(403, f'This page is not for {host!r}. Open it by the address that the server has printed.')
        return False

    def _send_json(self, value: object, status: int = 200) -> None:
        self._send(json.dumps(value).encode(), 'application/json', status)

    def _refuse(self, status: int, text: str) -> None:
        self.close_connection = True
        self._send_json(dict(error=text), status)

    def _send(self, content: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        headers = {'Content-Type': kind, 'Content-Length': str(len(content)), 'Cache-Control': 'no-store'}
        headers |= {'Content-Security-Policy': POLICY, 'X-Content-Type-Options': 'nosniff'}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Log requests for those who look for a fault."""
        logger.debug(format, *args)


def _examples() -> list[Path]:
    return sorted(EXAMPLES.glob('*.jpg'))[1:7]


def _read_wanted(content: bytes) -> dict:
    """Read what the page asks for; raises UserError if a value is missing or of another kind."""
    try:
        wanted = json.loads(content)
    except (ValueError, RecursionError):  # RecursionError: nested too deeply
        wanted = None
    if not isinstance(wanted, dict):
        raise UserError('The request is not a JSON object.', RELOAD)
    for name, (expected, is_valid) in WANTED.items():
        if not is_valid(wanted.get(name)):
            raise UserError(f'The request needs {name}: {expected}.', RELOAD)
    return wanted


def _encode(picture: np.ndarray) -> str:
    """Return an RGB picture as an address that holds a JPEG."""
    _, content = cv2.imencode('.jpg', picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
    return f'data:image/jpeg;base64,{base64.b64encode(content).decode()}'
