"""The page in a real browser: tasks, quick clicks, errors, two tabs; and what the server refuses."""

import contextlib
import csv
import io
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmstvit.app.server import BUSY, MAX_CALLS, MAX_FILES, Server
from mmstvit.app.service import Service
from mmstvit.app.uploads import Uploads
from mmstvit.errors import UserError

from ..helpers import free_port
from ..in_process import restored
from ..test_datasets.tiny_data import draw, write
from .checkpoints import save_checkpoint, save_checkpoints

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
ARGS = ('--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking')
ARGS += ('--disable-component-update', '--disable-sync')
MAX_BYTES = 400_000

pytestmark = pytest.mark.long
in_browser = pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed (Debian: apt install chromium)')


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A server with untrained models of the three tasks, and two images as examples."""
    root = tmp_path_factory.mktemp('site')
    save_checkpoints(root / 'work_dirs')
    os.utime(root / 'work_dirs/mmdet/epoch_1.pth', (2e9, 2e9))  # the newest
    (root / 'outside.pth').write_bytes(b'')
    (root / 'cache').mkdir()
    for index in range(3):
        write(root / f'data/scenes/coco/val/{index}.jpg', np.kron(draw(index), np.ones((4, 4, 1), np.uint8)))
    with restored(root), pytest.MonkeyPatch.context() as patch:
        patch.setenv('MMSTVIT_MAX_PIXELS', '10000000')
        service, uploads = Service(Path('work_dirs'), 'cpu'), Uploads(root / 'cache')
        server = Server(('127.0.0.1', 0), service, uploads, MAX_BYTES)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield SimpleNamespace(url=f'http://127.0.0.1:{server.server_port}', root=root, port=server.server_port)
        server.shutdown()
        server.server_close()


@pytest.fixture(scope='module')
def browser() -> Iterator:
    sync_api = pytest.importorskip('playwright.sync_api')
    with sync_api.sync_playwright() as client:
        browser = client.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


class Tab:
    """A tab with the page.

    Args:
        browser: The browser.
        site: The server.
    """

    def __init__(self, browser, site: SimpleNamespace, **options: object) -> None:
        self.root, self.page = site.root, browser.new_page(**options)
        self.page.set_default_timeout(30_000)
        self.addresses: set[str] = set()
        self.faults: list[str] = []
        self.page.on('request', lambda request: self.addresses.add(request.url))
        self.page.on('pageerror', lambda error: self.faults.append(str(error)))
        self.page.goto(site.url)
        self.status, self.rows = self.page.locator('#status'), self.page.locator('.row')
        self.heat, self.note = self.page.locator('#heat'), self.page.locator('#heat-note')
        self.page.locator('#examples button').nth(1).wait_for()  # comes after the models

    def choose(self, model: str) -> None:
        """Choose a model in the list, or by its path."""
        if model in self.page.locator('#model option').all_inner_texts():
            self.page.select_option('#model', model)
        else:
            self.page.once('dialog', lambda dialog: dialog.accept(model))
            self.page.select_option('#model', '')

    def upload(self, path: Path) -> None:
        self.page.locator('#file').set_input_files(path)

    def example(self, index: int) -> None:
        self.page.locator('#examples button').nth(index).click()

    def wait(self, text: str) -> str:
        self.page.wait_for_function(
            'text => status.textContent.includes(text) && !status.classList.contains("busy")'.replace(
                'status', 'document.getElementById("status")'
            ),
            arg=text,
        )
        return self.status.inner_text()

    def point(self) -> tuple[int, int]:
        x, y = self.note.inner_text().partition('(')[2].partition(')')[0].split(',')
        return int(x), int(y)

    def click(self, x: float, y: float) -> None:
        box = self.heat.bounding_box()
        self.heat.click(position=dict(x=box['width'] * x, y=box['height'] * y))


@pytest.fixture(scope='module')
def tab(browser, site) -> Iterator[Tab]:
    """A tab that the tests share."""
    tab = Tab(browser, site)
    yield tab
    assert tab.faults == []
    tab.page.close()


@in_browser
def test_each_task_predicts(tab, site):
    tab.example(0)
    for library, heading, names in (
        ('mmdet', 'Objects', {'circle'}),
        ('mmseg', 'Segments', {'background', 'circle', 'square', 'triangle', 'star', 'digit'}),
        ('mmpretrain', 'Classes', {'circle', 'square', 'triangle', 'star', 'digit'}),
    ):
        tab.choose(f'{library}/epoch_1.pth')
        status = tab.wait(f'{library}/epoch_1.pth')
        assert '128 × 96 pixels · 64 × 48 for the model · ' in status and status.endswith(' s')
        assert heading in tab.page.locator('#heading').inner_text()
        found = [name.strip() for name in tab.rows.locator('span:first-of-type').all_inner_texts()]
        assert found and {*found} <= names
        assert tab.page.locator('#score').is_visible() == (library == 'mmdet')
        assert tab.page.locator('#prediction').get_attribute('alt').startswith(f'Prediction. {heading}')
    # Nothing is loaded from elsewhere.
    assert {url for url in tab.addresses if not url.startswith((site.url, 'data:', 'blob:'))} == set()


@in_browser
def test_the_last_of_three_quick_clicks_is_shown(tab):
    tab.choose('mmdet/epoch_1.pth')
    tab.example(1)
    tab.wait('mmdet/epoch_1.pth')
    for last in ((0.75, 0.25), (0.2, 0.8)):
        for x, y in ((0.1, 0.1), (0.5, 0.6), last):
            tab.click(x, y)
        tab.wait('mmdet/epoch_1.pth')
        x, y = tab.point()
        assert abs(x - last[0] * 64) <= 1 and abs(y - last[1] * 48) <= 1  # of 64 × 48 pixels


@in_browser
def test_keys_move_the_point_and_blocks_change_the_maps(tab):
    tab.choose('mmdet/epoch_1.pth')
    tab.example(1)
    tab.wait('mmdet/epoch_1.pth')
    tab.click(0.5, 0.5)
    tab.wait('mmdet/epoch_1.pth')
    x, y = tab.point()
    tab.page.locator('#heat-figure').focus()
    tab.page.keyboard.press('ArrowRight')
    tab.wait('mmdet/epoch_1.pth')
    assert tab.point() == (x + 4, y)  # the next token
    tab.page.select_option('#stage', '2')
    tab.wait('mmdet/epoch_1.pth')
    assert 'global attention' in tab.page.locator('#note').inner_text()
    tab.page.select_option('#block', '1')
    tab.wait('mmdet/epoch_1.pth')
    assert 'Stage 2 block 1' in tab.note.inner_text()
    tab.page.select_option('#stage', '0')
    tab.wait('mmdet/epoch_1.pth')
    tab.page.locator('#cut').focus()
    tab.page.keyboard.press('End')
    assert tab.page.evaluate('getComputedStyle(tokens).clipPath') == 'inset(0px 0px 0px 100%)'


@in_browser
def test_the_score_and_the_downloads(tab):
    tab.choose('mmdet/epoch_1.pth')
    tab.example(0)
    tab.wait('mmdet/epoch_1.pth')
    assert tab.rows.count() > 0
    with tab.page.expect_download() as waiting:
        tab.page.locator('#json').click()
    content = json.loads(waiting.value.path().read_text())
    assert len(content['results']) == tab.rows.count() and content['results'][0]['name'] == 'circle'
    tab.page.locator('#score').focus()
    tab.page.keyboard.press('End')
    tab.page.get_by_text('None.').wait_for()
    assert '0.95 or more' in tab.page.locator('#heading').inner_text()
    with tab.page.expect_download() as waiting:
        tab.page.locator('#picture').click()
    assert waiting.value.path().read_bytes()[:3] == b'\xff\xd8\xff'
    tab.page.keyboard.press('Home')
    tab.page.locator('#score').fill('0.3')
    tab.wait('mmdet/epoch_1.pth')


@in_browser
def test_faults_are_sentences(tab, site):
    tab.choose('mmdet/epoch_1.pth')
    (site.root / 'bad.png').write_bytes(b'text')
    write(site.root / 'wide.png', np.zeros((3200, 3200, 3), np.uint8))
    write(site.root / 'thin.png', np.zeros((8, 640, 3), np.uint8))
    (site.root / 'heavy.png').write_bytes(bytes(MAX_BYTES + 1))
    for name, reason in (
        ('bad.png', 'bad.png cannot be used'),
        ('wide.png', 'more than 10,000,000'),
        ('thin.png', '32 × 32 to'),
        ('heavy.png', '--max-bytes'),
    ):
        tab.example(0)
        tab.wait('mmdet/epoch_1.pth')
        assert tab.rows.count() > 0
        tab.upload(site.root / name)
        tab.wait(reason)
        assert tab.rows.count() == 0 and not tab.heat.is_visible()  # nothing of the image before
    tab.example(1)
    tab.wait('mmdet/epoch_1.pth')
    for path in ('../outside.pth', str(site.root / 'outside.pth'), '/etc/passwd', 'http://127.0.0.1/a.pth'):
        tab.choose(path)
        tab.wait(f'There is no checkpoint {path}')
    tab.choose('work_dirs/mmdet/../mmseg/epoch_1.pth')  # a path that leads into the folder
    tab.wait('mmseg/epoch_1.pth')


@in_browser
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_a_phone_shows_one_panel_at_a_time(browser, site, scheme):
    tab = Tab(browser, site, viewport=dict(width=390, height=800), color_scheme=scheme)
    tab.choose('mmdet/epoch_1.pth')
    tab.example(0)
    tab.wait('mmdet/epoch_1.pth')
    assert tab.page.evaluate('document.documentElement.scrollWidth') <= 390
    assert tab.page.locator('#prediction').is_visible() and not tab.heat.is_visible()
    tab.page.get_by_role('button', name='Attention').click()
    assert tab.heat.is_visible() and not tab.page.locator('#prediction').is_visible()
    background = tab.page.evaluate('getComputedStyle(document.body).backgroundColor')
    assert (background == 'rgb(255, 255, 255)') == (scheme == 'light')
    tab.page.close()


HOSTILE = ['<img src=x onerror=hit()>', '" onmouseover="hit()', '${hit()}', '=1+1', "`'<b>&amp;"]
NAME = '<img src=x onerror=hit()>'  # of files and folders


@in_browser
@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain'])
def test_names_in_data_are_text(browser, site, library):
    """Class names, the folder of a checkpoint and the name of an image: nothing in them becomes part of the page."""
    folder = site.root / 'work_dirs' / f'{NAME} {library}'
    save_checkpoint(library, folder / f'{NAME}.pth', HOSTILE)
    checkpoint = f'{folder.name}/{NAME}.pth'
    tab = Tab(browser, site)
    tab.page.evaluate('() => { window.hits = 0; window.hit = () => { window.hits += 1; } }')
    tab.choose(checkpoint)
    tab.example(0)
    assert tab.wait(checkpoint).startswith(checkpoint)
    names = [name.strip() for name in tab.rows.locator('span:first-of-type').all_inner_texts()]
    assert names and set(names) == (set(HOSTILE) if library == 'mmpretrain' else {HOSTILE[0]})
    with tab.page.expect_download() as waiting:
        tab.page.locator('#csv').click()
    table = [line[0] for line in csv.reader(io.StringIO(waiting.value.path().read_text()))]
    assert table[0] == 'name' and {*table[1:]} == {name.replace('=1+1', "'=1+1") for name in names}
    (site.root / f'{NAME}.png').write_bytes(b'text')
    tab.upload(site.root / f'{NAME}.png')
    tab.wait('cannot be used')
    assert tab.page.locator('img[src="x"], [onmouseover]').count() == 0
    assert not [url for url in tab.addresses if url.endswith('/x')] and tab.page.evaluate('window.hits') == 0
    tab.page.close()
    shutil.rmtree(folder)


def send(site, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    """Send a request as a program may; returns status and answer."""
    request = urllib.request.Request(site.url + path, body, {name.replace('_', '-'): v for name, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode(errors='replace')
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@pytest.mark.parametrize('host', ['evil.example', 'evil.example:7860', '127.0.0.1.evil.example', '', '[', 'a@b'])
def test_other_names_of_this_machine_are_refused(site, host):
    """As a page of a stranger has, whose name leads to this machine."""
    for path, body in (('/', None), ('/models', None), ('/images', b'')):
        assert send(site, path, body, Host=host)[0] == 403


def test_its_own_names_and_addresses_are_not(site):
    for host in (f'127.0.0.1:{site.port}', f'localhost:{site.port}', f'[::1]:{site.port}', socket.gethostname()):
        assert send(site, '/models', Host=host)[0] == 200


@pytest.mark.parametrize('origin', ['http://evil.example', 'https://127.0.0.1', 'null', 'http://127.0.0.1:1'])
def test_pages_of_others_cannot_post(site, origin):
    assert send(site, '/images', b'', Origin=origin)[0] == 403
    assert send(site, '/predict', b'{}', Origin=origin)[0] == 403


def test_only_its_own_files_are_sent(site):
    for path in (
        *('/outside.pth', '/work_dirs/mmdet/epoch_1.pth', '/../outside.pth', '/%2e%2e/outside.pth', '//etc/passwd'),
        *('/examples/../0.jpg', '/examples/0.jpg', '/examples/%2fetc%2fpasswd', '/server.py', '/page.py', '/cache'),
    ):
        assert send(site, path)[0] == 404, path
    status, text = send(site, '/examples/1.jpg')
    assert status == 200 and text


SOUND = dict(image='a', model='b', stage=0, block=0, score=0.3, point=[0.5, 0.5])


@pytest.mark.parametrize('body', [b'', b'{', b'[1]', b'[' * 60_000, b'\xff', b'9' * 5000], ids=range(6))
def test_requests_that_are_no_object_are_refused(site, body, caplog):
    status, text = send(site, '/predict', body)
    assert status == 400 and json.loads(text)['error'].startswith('The request is not a JSON object.')
    assert not caplog.records


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *(('image', {'a': 1}), ('model', None), ('stage', math.inf), ('stage', -1), ('stage', True), ('block', [1])),
        *(('block', 2000), ('score', 'x'), ('score', math.nan), ('score', 2), ('point', [math.nan, 0.5])),
        *(('point', [0.5]), ('point', [2, 0]), ('point', 'ab'), ('point', {'a': 1, 'b': 1})),
    ],
)
def test_values_that_make_no_sense_are_named(site, name, value, caplog):
    status, text = send(site, '/predict', json.dumps({**SOUND, name: value}).encode())
    assert status == 400 and json.loads(text)['error'].startswith(f'The request needs {name}: ')
    assert not caplog.records


def test_an_image_that_was_never_sent(site):
    status, text = send(site, '/predict', json.dumps(SOUND).encode())
    assert status == 400 and 'no longer kept' in text


def ask(site, first: str, headers: str = '', body: bytes = b'') -> socket.socket:
    """Send a request, or a part of one, as no browser would."""
    client = socket.create_connection(('127.0.0.1', site.port), timeout=30)
    client.sendall(f'{first} HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n{headers}\r\n'.encode() + body)
    return client


@pytest.mark.parametrize(
    ('first', 'headers', 'status'),
    [
        ('GET http://[', '', 404),
        ('POST /images', '', 411),
        ('POST /images', 'Transfer-Encoding: chunked\r\n', 411),
        ('POST /images', 'Content-Length: -1\r\n', 411),
        ('POST /images', f'Content-Length: {"9" * 5000}\r\n', 413),
    ],
    ids=['address', 'no length', 'chunked', 'negative', 'digits'],
)
def test_odd_requests_are_answered(site, first, headers, status):
    with ask(site, first, headers) as client:
        assert client.recv(100).startswith(f'HTTP/1.0 {status} '.encode())


def test_sizes_are_limited(site):
    assert send(site, '/images', bytes(MAX_BYTES + 1))[0] == 413
    assert send(site, '/predict', bytes(70_000))[0] == 413


def test_the_memory_of_all_requests_is_limited(site):
    """What does not fit is read and dropped; the next request is answered again."""
    image, most = (site.root / 'data/scenes/coco/val/1.jpg').read_bytes(), f'Content-Length: {MAX_BYTES}\r\n'
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(ask(site, 'POST /images', most, bytes(MAX_BYTES - 1))) for _ in range(MAX_FILES)]
        wait_for(lambda: send(site, '/images', image), 503)
        assert json.loads(send(site, '/images', image)[1]) == BUSY
        slow[0].sendall(b'a')
        assert b' 400 ' in slow[0].recv(100)  # no image
        wait_for(lambda: send(site, '/images', image), 200)
    wait_for(lambda: send(site, '/images', bytes(MAX_BYTES)), 400)


def wait_for(call: Callable[[], tuple[int, str]], status: int) -> None:
    """Repeat a request until its answer has this status."""
    for _ in range(50):
        if call()[0] == status:
            return
        time.sleep(0.1)
    pytest.fail(f'no answer has the status {status}')


def test_calls_that_send_nothing_keep_nobody_waiting(site):
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_CALLS + 4):
            stack.enter_context(ask(site, 'POST /images', 'Content-Length: 100\r\n', b'a'))
        assert send(site, '/images', (site.root / 'data/scenes/coco/val/1.jpg').read_bytes())[0] == 200


def test_a_request_must_arrive_in_time(site, monkeypatch):
    """However its bytes trickle in."""
    monkeypatch.setattr('mmstvit.app.server.BODY_SECONDS', 1)
    with ask(site, 'POST /images', 'Content-Length: 100\r\n') as client:
        client.settimeout(0.2)
        for _ in range(50):
            client.sendall(b'a')
            with contextlib.suppress(TimeoutError):
                assert b' 408 ' in client.recv(100)
                return
        pytest.fail('The server still waits.')


def test_a_browser_that_goes_is_no_fault(site, capfd, caplog):
    for body in (b'', b'a' * 100):
        client = ask(site, 'POST /images', 'Content-Length: 100\r\n', body)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))  # close() resets
        client.close()
    for _ in range(20):
        client = ask(site, 'GET /examples/1.jpg')
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        client.close()
    assert send(site, '/models')[0] == 200
    time.sleep(0.5)  # the threads of the others
    assert capfd.readouterr().err == '' and not caplog.records


@pytest.mark.parametrize('port', ['used', 99_999])
def test_a_port_that_cannot_be_used(site, port):
    with pytest.raises(UserError, match='port is in use') as error:
        Server(('127.0.0.1', site.port if port == 'used' else port), None, None, 0)
    assert '--port' in error.value.remedy


def test_the_command_serves_until_it_is_stopped(site, tmp_path):
    """Its uploads go with it. An address other than the default comes with a warning."""
    host, port = '127.0.0.2', free_port()['PORT']
    command = [sys.executable, '-u', '-m', 'mmstvit.app', '--host', host, '--port', port, '--device', 'cpu']
    environment = {**os.environ, 'TMPDIR': str(tmp_path), 'PYTHONWARNINGS': 'ignore'}
    process = subprocess.Popen(command, cwd=site.root, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith(f'The page is at http://{host}:{port}')
        assert 'no password' in process.stdout.readline()
        with urllib.request.urlopen(f'http://{host}:{port}') as answer:
            assert 'STViT' in answer.read().decode()
        assert len(list(tmp_path.glob('mmstvit-app-*'))) == 1
        process.terminate()
        process.wait(timeout=60)
    finally:
        process.kill()
    assert list(tmp_path.glob('mmstvit-app-*')) == []
