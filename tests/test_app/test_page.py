"""The page in a real browser: tasks, clicks, errors, two tabs, and what Gradio's own routes give away."""

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from mmstvit.errors import UserError

from ..helpers import free_port
from ..in_process import restored
from ..test_datasets.tiny_data import draw, write
from .checkpoints import save_checkpoint, save_checkpoints

sync_api = pytest.importorskip('playwright.sync_api')
CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
ARGS = ('--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking')
ARGS += ('--disable-component-update', '--disable-sync')
MAX_BYTES, MAX_PIXELS = 200_000, 90_000

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed (Debian: apt install chromium)'),
]


def options(port: int) -> SimpleNamespace:
    limits = dict(max_bytes=MAX_BYTES, max_pixels=MAX_PIXELS)
    return SimpleNamespace(host='127.0.0.1', port=port, dir=Path('work_dirs'), device='cpu', **limits)


@pytest.fixture(scope='module')
def site(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A server with untrained models of the three tasks, and two images as examples."""
    pytest.importorskip('gradio')
    from mmstvit.app.page import serve

    root = tmp_path_factory.mktemp('site')
    save_checkpoints(root / 'work_dirs')
    os.utime(root / 'work_dirs/mmdet/epoch_1.pth', (2e9, 2e9))  # the newest
    (root / 'outside.pth').write_bytes(b'')
    for index in range(3):
        write(root / f'data/scenes/coco/val/{index}.jpg', np.kron(draw(index), np.ones((4, 4, 1), np.uint8)))
    with restored(root):
        port = int(free_port()['PORT'])
        page = serve(options(port), root / 'cache')
        yield SimpleNamespace(url=f'http://127.0.0.1:{port}', root=root)
        page.close()


@pytest.fixture(scope='module')
def browser() -> Iterator:
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

    def __init__(self, browser, site: SimpleNamespace) -> None:
        self.root, self.page = site.root, browser.new_page()
        self.page.set_default_timeout(30_000)
        self.addresses: set[str] = set()
        self.page.on('request', lambda request: self.addresses.add(request.url))
        self.page.goto(site.url)
        self.model = self.page.get_by_label('Model')
        self.status = self.page.locator('#status')
        self.rows = self.page.locator('.stvit-row')
        self.attention, self.note = self.page.locator('#attention img'), self.page.locator('#attention-note')
        self.heading = self.page.locator('#lines h3')
        # The list of checkpoints comes after the page.
        sync_api.expect(self.model).to_have_value('mmdet/epoch_1.pth', timeout=30_000)

    def choose(self, model: str) -> None:
        self.model.fill(model)
        self.model.press('Enter')

    def upload(self, path: Path) -> None:
        self.page.locator('input[type=file]').set_input_files(path)

    def example(self, index: int) -> None:
        self.page.locator('.gallery-item').nth(index).click()

    def wait(self, text: str) -> str:
        self.status.get_by_text(text).wait_for()
        return self.status.inner_text()

    def changed(self, image, before: str) -> str:
        """Wait until an image is another one; returns its address."""
        self.page.wait_for_function('([image, before]) => image.src !== before', arg=[image.element_handle(), before])
        return image.get_attribute('src')


@pytest.fixture(scope='module')
def tab(browser, site) -> Iterator[Tab]:
    """A tab that the tests share, because the page takes seconds to open."""
    tab = Tab(browser, site)
    yield tab
    tab.page.close()


def test_each_task_predicts(tab, site):
    tab.example(0)
    for library, heading, names in (
        ('mmdet', 'Objects', {'circle'}),
        ('mmseg', 'Segments', {'background', 'circle', 'square', 'triangle', 'star', 'digit'}),
        ('mmpretrain', 'Classes', {'circle', 'square', 'triangle', 'star', 'digit'}),
    ):
        tab.choose(f'{library}/epoch_1.pth')
        status = tab.wait(f'{library}/epoch_1.pth')
        assert 'image 128 × 96, resized to 64 × 48 pixels · ' in status and status.endswith(' s')
        assert heading in tab.heading.inner_text()
        assert {name.strip() for name in tab.rows.locator('span:first-of-type').all_inner_texts()} <= names
        assert tab.rows.count() > 0
    # Nothing is loaded from elsewhere.
    assert {url for url in tab.addresses if not url.startswith((site.url, 'data:', 'blob:'))} == set()


def test_a_click_and_another_block_change_the_maps(tab):
    tab.example(1)
    tab.choose('mmdet/epoch_1.pth')
    tab.wait('mmdet/epoch_1.pth')
    note = tab.note
    assert 'Stage 0 block 0' in note.inner_text()
    before = tab.attention.get_attribute('src')
    box = tab.attention.bounding_box()
    tab.attention.click(position=dict(x=box['width'] * 0.75, y=box['height'] * 0.25))
    clicked = tab.changed(tab.attention, before)
    x, y = map(int, note.inner_text().partition('(')[2].partition(')')[0].split(','))
    assert abs(x - 48) <= 2 and abs(y - 12) <= 2  # of 64 × 48 pixels
    # The ring is at the pixel that was clicked.
    picture = cv2.imdecode(np.frombuffer(tab.page.request.get(clicked).body(), np.uint8), cv2.IMREAD_COLOR)
    height, width = picture.shape[:2]
    middle = picture[int(height * 0.25) - 30 : int(height * 0.25) + 30, int(width * 0.75) - 30 : int(width * 0.75) + 30]
    assert (middle.min(-1) > 240).any() and not (picture[: height // 2, : width // 2].min(-1) > 240).any()
    tab.page.get_by_label('2', exact=True).check()
    third = tab.changed(tab.attention, clicked)
    tab.page.get_by_text('global attention').wait_for()
    tab.page.get_by_label('number input for Block').fill('1')
    tab.page.get_by_label('number input for Block').press('Enter')
    tab.changed(tab.attention, third)
    assert 'Stage 2 block 1' in note.inner_text()


def test_faults_are_sentences(tab, site):
    tab.choose('mmdet/epoch_1.pth')
    tab.example(0)
    tab.wait('mmdet/epoch_1.pth')
    (site.root / 'bad.png').write_bytes(b'text')
    write(site.root / 'wide.png', np.zeros((10, MAX_PIXELS // 10 + 1, 3), np.uint8))
    for name, reason in (('bad.png', 'not an image'), ('wide.png', 'has more than 90,000 pixels')):
        tab.upload(site.root / name)
        assert name in tab.wait(reason)
        assert tab.rows.count() == 0  # nothing of the image before
        tab.page.get_by_label('Remove Image').click()
        tab.wait('Drop an image')
    write(site.root / 'thin.png', np.zeros((8, 640, 3), np.uint8))
    tab.choose('mmpretrain/epoch_1.pth')
    tab.upload(site.root / 'thin.png')
    tab.wait('images of at least 32×32')
    tab.choose('mmdet/epoch_1.pth')
    tab.page.get_by_label('Remove Image').click()
    tab.wait('Drop an image')
    (site.root / 'heavy.png').write_bytes(bytes(MAX_BYTES + 1))
    tab.upload(site.root / 'heavy.png')
    tab.page.get_by_text('exceed').wait_for()
    tab.example(1)
    tab.wait('mmdet/epoch_1.pth')
    for path in ('../outside.pth', str(site.root / 'outside.pth'), '/etc/passwd', 'http://127.0.0.1/a.pth'):
        tab.choose(path)
        assert 'Traceback' not in tab.wait(f'There is no checkpoint {path}')


def test_two_tabs_at_once(tab, browser, site):
    tabs = [tab, Tab(browser, site)]
    models = 'mmseg/epoch_1.pth', 'mmpretrain/epoch_1.pth'
    for tab, model in zip(tabs, models, strict=True):
        tab.choose(model)
    for index, tab in enumerate(tabs):
        tab.example(index)
    for tab, model in zip(tabs, models, strict=True):
        tab.wait(model)
    assert [tab.heading.inner_text().split()[0] for tab in tabs] == ['Segments,', 'Classes']
    sources = [tab.attention.get_attribute('src') for tab in tabs]
    tabs[0].attention.click(position=dict(x=20, y=20))
    tabs[0].changed(tabs[0].attention, sources[0])
    tabs[1].attention.click(position=dict(x=100, y=30))
    tabs[1].changed(tabs[1].attention, sources[1])
    notes = [tab.note.inner_text() for tab in tabs]
    assert notes[0] != notes[1]
    tabs[0].page.get_by_label('1', exact=True).check()
    tabs[0].page.get_by_text('Stage 1 block 0').wait_for()
    assert [tab.status.inner_text().split()[0] for tab in tabs] == list(models)
    assert 'Stage 0' in tabs[1].note.inner_text()
    tabs[1].page.close()


@pytest.mark.parametrize('port', ['used', 99_999])
def test_a_port_that_cannot_be_used(site, port):
    from mmstvit.app.page import serve

    port = int(site.url.rpartition(':')[2]) if port == 'used' else port
    with pytest.raises(UserError, match='port is in use') as error:
        serve(options(port), site.root / 'cache')
    assert '--port' in error.value.remedy


HOSTILE = ['<img src=x onerror=hit()>', '" onmouseover="hit()', '${hit()}', '{{value}}', "`'<b>&amp;"]
NAME = '<img src=x onerror=hit()>'  # of files and folders


@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain'])
def test_names_in_data_are_text(tab, site, library):
    """Class names, the folder of a checkpoint and the name of an image: nothing in them becomes part of the page."""
    folder = site.root / 'work_dirs' / f'{NAME} {library}'
    save_checkpoint(library, folder / f'{NAME}.pth', HOSTILE)
    hits = []
    tab.page.on('request', lambda request: hits.append(request.url) if request.url.endswith('/x') else None)
    tab.page.evaluate('() => { window.hits = 0; window.hit = () => { window.hits += 1; } }')
    tab.example(0)
    checkpoint = f'{folder.name}/{NAME}.pth'
    tab.choose(checkpoint)
    assert tab.wait(checkpoint).startswith(checkpoint)
    names = [name.strip() for name in tab.rows.locator('span:first-of-type').all_inner_texts()]
    assert names and set(names) == (set(HOSTILE) if library == 'mmpretrain' else {HOSTILE[0]})
    for row in tab.rows.all():
        row.locator('span').first.hover()
        assert row.locator('span').first.get_attribute('title') in HOSTILE
    shutil.copy(site.root / 'data/scenes/coco/val/1.jpg', site.root / f'{NAME}.jpg')
    (site.root / f'{NAME}.png').write_bytes(b'text')
    tab.page.get_by_label('Remove Image').click()
    tab.wait('Drop an image')
    tab.upload(site.root / f'{NAME}.jpg')
    tab.wait(checkpoint)
    tab.page.get_by_label('Remove Image').click()
    tab.wait('Drop an image')
    tab.upload(site.root / f'{NAME}.png')
    tab.wait('not an image')
    tab.choose(f'{NAME}/none.pth')
    tab.wait('There is no checkpoint')
    tab.page.reload()  # the list of the checkpoints
    tab.page.evaluate('() => { window.hits = 0; window.hit = () => { window.hits += 1; } }')
    tab.model.click()
    tab.page.get_by_role('option', name=checkpoint).wait_for()
    tab.page.keyboard.press('Escape')
    assert tab.page.locator('img[src="x"], [onmouseover]').count() == 0
    assert hits == [] and tab.page.evaluate('window.hits') == 0
    shutil.rmtree(folder)


def test_gradio_serves_nothing_else(browser, site):
    page = browser.new_page()
    for path in (
        'file=/etc/passwd',
        f'file={site.root}/work_dirs/mmdet/epoch_1.pth',
        f'file={site.root}/outside.pth',
        'file=work_dirs/mmdet/epoch_1.pth',
        f'file={site.root}/cache/../outside.pth',
        'file=http://127.0.0.1/a',
        'file/https://127.0.0.1/a',
        'proxy=http://127.0.0.1/a',
    ):
        assert page.request.get(f'{site.url}/gradio_api/{path}').status in (403, 404), path
    page.close()


def call(browser, site, function: str, *data: object) -> str:
    """Call a function behind the page, as a program may; returns its answer."""
    page = browser.new_page()
    answer = page.request.post(f'{site.url}/gradio_api/call/{function}', data=dict(data=data))
    if answer.ok:
        answer = page.request.get(f'{site.url}/gradio_api/call/{function}/{answer.json()["event_id"]}')
    status, text = answer.status, answer.text()
    page.close()
    return f'{status} {text}'


def file(path: object) -> dict:
    return dict(path=str(path), meta=dict(_type='gradio.FileData'))


MODEL = 'mmdet/epoch_1.pth'


def test_files_of_the_server_are_not_uploads(browser, site):
    for path in (site.root / 'outside.pth', '/etc/passwd', site.root / 'data/scenes/coco/val/0.jpg'):
        assert 'event: error' in call(browser, site, 'show', MODEL, file(path), 0, 0, None)
    plain = dict(path=str(site.root / 'data/scenes/coco/val/0.jpg'))  # which Gradio does not check
    answer = call(browser, site, 'show', MODEL, plain, 0, 0, None)
    assert 'event: error' in answer or 'not an uploaded file' in answer


def test_addresses_in_place_of_files_are_refused(browser, site):
    """In every argument: Gradio would fetch them for a choice of numbers, too."""
    address = file('http://127.0.0.1/a.png')
    for data in (
        [MODEL, address, 0, 0],
        [address, None, 0, 0],
        [MODEL, None, [[address]], 0],
        [MODEL, None, 0, address],
    ):
        assert call(browser, site, 'show', *data, None).startswith('403'), data
    page = browser.new_page()
    for body in (
        '{"data": [null, {"\\u0070ath": "HTTPS://127.0.0.1/a", "path": "b"}, 0, 0, null]}',
        '{"data": [' * 5000,
        '{"data": ',
    ):
        headers = {'Content-Type': 'application/json'}
        assert page.request.post(f'{site.url}/gradio_api/call/show', data=body.encode(), headers=headers).status == 403
    page.close()


def test_the_command_serves_until_it_is_stopped(site, tmp_path):
    """Its cache goes with it. An address other than the default comes with a warning."""
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
