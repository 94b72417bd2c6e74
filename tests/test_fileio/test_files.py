"""Only regular files are opened: a pipe would wait for ever, and /dev/zero fill the memory."""

import os
import socket
from pathlib import Path

import pytest

from mmstvit.apis.new_config.class_names import read_text
from mmstvit.apis.predict.inputs import read_frames
from mmstvit.datasets.images import IMAGE_READER, UnreadableError
from mmstvit.datasets.importers import is_label_file, read_voc, read_yolo_yaml
from mmstvit.datasets.json_files import read_json
from mmstvit.engine.runner.resume import find_checkpoint
from mmstvit.errors import UserError
from mmstvit.fileio import image_size, open_file, read_checkpoint, resumable_checkpoints
from mmstvit.rules.files import find_missing_paths


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_device(path: Path) -> None:
    path.symlink_to('/dev/zero')


def bind_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # relative: such paths are short


@pytest.fixture(params=[make_pipe, link_device, bind_socket])
def special(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    request.param(tmp_path / 'file.pth')
    return tmp_path / 'file.pth'


def read_image(path: Path) -> None:
    IMAGE_READER.read(str(path))


def read_video(path: Path) -> None:
    next(read_frames(path))


@pytest.mark.parametrize(
    'read', [open_file, read_checkpoint, read_json, read_text, read_yolo_yaml, read_voc, read_image, read_video]
)
def test_every_reader_refuses(special, read):
    with pytest.raises((OSError, UserError, UnreadableError), match='not a file'):
        read(special)


def test_searches_leave_it_out(special):
    assert image_size(special) is None
    assert not is_label_file(special)
    assert not list(resumable_checkpoints([special.parent]))
    (finding,) = find_missing_paths({'test_dataloader': {'dataset': {'ann_file': str(special)}}}, ['test'])
    assert 'is not a file' in finding.message
    os.rename(special, 'last_checkpoint')
    with pytest.raises(UserError, match=r'last_checkpoint cannot be read: .*not a file'):
        find_checkpoint(special.parent)
