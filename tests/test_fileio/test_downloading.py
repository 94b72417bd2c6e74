"""Downloads: each address has its own file, read without executing code, and an incomplete one does not stay."""

import http.server
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmstvit.errors import CheckpointError
from mmstvit.fileio import open_checkpoint, safe_loading

from ..helpers import Harm


class Server(http.server.ThreadingHTTPServer):
    """A server of files in memory, which closes the connection after ``limit`` bytes."""

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.files: dict[str, bytes] = {}
        self.limit: int | None = None
        self.requests: list[str] = []

    def save(self, path: str, content: object) -> str:
        """Offer a checkpoint, and return its address."""
        buffer = io.BytesIO()
        torch.save(content, buffer)
        self.files[path] = buffer.getvalue()
        return f'http://127.0.0.1:{self.server_port}{path}'


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers of the server."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        if self.path not in self.server.files:
            self.send_error(404)
            return
        data = self.server.files[self.path]
        self.send_response(200)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self.server.limit])

    def log_message(self, *args: object) -> None:
        """Print nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch keeps downloaded checkpoints."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    return tmp_path / 'checkpoints'


def test_files_of_one_name_at_two_addresses_are_two_files(server, cache):
    addresses = [server.save(f'/{name}', {'a': torch.full((1,), value)}) for name, value in (
        ('one/model.pth', 1.0), ('two/model.pth', 2.0), ('one/model.pth?revision=3', 3.0))]  # fmt: skip
    for _ in range(2):
        assert [open_checkpoint(address).weights['a'].item() for address in addresses] == [1, 2, 3]
    assert len(server.requests) == 3, 'each is downloaded once'
    assert len(list(cache.glob('*-model.pth'))) == 3


def test_a_download_that_is_cut_does_not_stay(server, cache):
    address = server.save('/model.pth', {'a': torch.ones(1000)})
    server.limit = 2000
    with pytest.raises(CheckpointError, match=r'model\.pth cannot be downloaded: .* after 2000 of \d+ bytes'):
        open_checkpoint(address)
    assert list(cache.iterdir()) == []
    server.limit = None
    assert len(open_checkpoint(address).weights['a']) == 1000


def test_a_web_page_does_not_stay(server, cache):
    address = server.save('/model.pth', {'a': torch.ones(1)})
    whole, server.files['/model.pth'] = server.files['/model.pth'], b'<!DOCTYPE html><title>Quota exceeded</title>'
    with pytest.raises(CheckpointError, match=rf'^{address} is a web page'):
        open_checkpoint(address)
    assert list(cache.iterdir()) == []
    server.files['/model.pth'] = whole
    assert open_checkpoint(address).weights['a'] == 1


def test_a_damaged_download_does_not_stay(server, cache):
    address = server.save('/model.pth', {'a': torch.ones(1000)})
    whole = server.files['/model.pth']
    damaged = bytearray(whole)
    damaged[whole.index(torch.ones(9).numpy().tobytes())] ^= 1
    server.files['/model.pth'] = bytes(damaged)
    with pytest.raises(CheckpointError, match=rf'^{address} is damaged'):
        open_checkpoint(address)
    server.files['/model.pth'] = whole
    assert open_checkpoint(address).weights['a'].sum() == 1000


@pytest.mark.parametrize('path', [':9/file.pth', '/gone.pth'], ids=['no server', 'no file'])
def test_a_failed_download_leaves_no_file(server, cache, path):
    address = f'http://127.0.0.1{path if path.startswith(":") else f":{server.server_port}{path}"}'
    with pytest.raises(CheckpointError, match=rf'{path} cannot be downloaded') as caught:
        open_checkpoint(address)
    assert 'by other means' in caught.value.remedy
    assert list(cache.iterdir()) == []


def test_a_downloaded_file_is_not_executed(server, cache, tmp_path):
    """With and without ``safe_loading``: ``init_cfg`` of STViT reads addresses in the libraries' tools too."""
    address = server.save('/file.pth', {'model': Harm(os.mkdir, str(tmp_path / 'made'))})
    with pytest.raises(CheckpointError, match='Nothing was executed'):
        open_checkpoint(address)
    with safe_loading(), pytest.raises(CheckpointError, match='Nothing was executed'):
        CheckpointLoader.load_checkpoint(address)
    assert not (tmp_path / 'made').exists()


def test_an_address_that_cannot_be_one(cache):
    with pytest.raises(CheckpointError, match=r'http://\[x/a.pth is not an address'):
        open_checkpoint('http://[x/a.pth')
