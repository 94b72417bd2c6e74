"""Files are written completely or not at all, and load with ``weights_only=True``."""

import enum
import hashlib
import io
import os
import resource
from argparse import Namespace
from collections import OrderedDict

import numpy as np
import pytest
import torch

from mmstvit.errors import CheckpointError
from mmstvit.fileio import Checkpoint, check_target, plain_data, plain_meta, serialize, write_all, write_atomically


@pytest.mark.parametrize(
    ('target', 'force', 'words'),
    [
        ('file.pth', False, r'file\.pth exists.*--force'),
        ('broken.pth', False, r'broken\.pth exists'),
        *((name, True, 'is the input file') for name in ('source.pth', 'link.pth', 'hard.pth')),
        ('.', True, r'is a folder\. Name a file, such as .*source\.pth'),
        ('new.safetensors', True, r'new\.safetensors would be a file of torch\.save.*new\.pth\.$'),
    ],
)
def test_targets_that_are_refused(tmp_path, target, force, words):
    for name in ('source.pth', 'file.pth'):
        (tmp_path / name).touch()
    (tmp_path / 'link.pth').symlink_to('source.pth')
    (tmp_path / 'broken.pth').symlink_to('gone')
    os.link(tmp_path / 'source.pth', tmp_path / 'hard.pth')
    with pytest.raises(CheckpointError, match=words):
        check_target(tmp_path / target, tmp_path / 'source.pth', force)
    check_target(tmp_path / 'new' / 'folder.pth', tmp_path / 'source.pth')
    check_target(tmp_path / 'file.pth', tmp_path / 'source.pth', force=True)


class TestSerialize:
    def test_the_same_content_gives_the_same_bytes(self):
        first, second = (serialize({'a': torch.arange(5), 'b': (1, 'x')}) for _ in range(2))
        assert first == second
        assert torch.load(io.BytesIO(first), weights_only=True)['a'].tolist() == [0, 1, 2, 3, 4]

    def test_content_that_needs_an_allow_list_is_refused_even_if_it_is_allowed_elsewhere(self):
        with torch.serialization.safe_globals([Namespace]):
            with pytest.raises(CheckpointError, match='does not load with weights_only=True'):
                serialize({'args': Namespace(lr=1)})
            assert Namespace in torch.serialization.get_safe_globals()


class TestWriteAtomically:
    def test_content_hash_and_replacement(self, tmp_path):
        target = tmp_path / 'a' / 'b' / 'file.pth'
        assert write_atomically(b'content', target) == hashlib.sha256(b'content').hexdigest()
        assert target.read_bytes() == b'content'
        write_atomically(b'new', target)
        assert target.read_bytes() == b'new'
        assert os.listdir(target.parent) == ['file.pth']

    def test_a_full_disk_leaves_the_old_file_and_no_other(self, tmp_path):
        (tmp_path / 'file.pth').write_bytes(b'old')
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            for target in (tmp_path / 'file.pth', tmp_path / 'new' / 'folder' / 'file.pth'):
                with pytest.raises(CheckpointError, match=r'file\.pth \(2\.0 MB\) cannot be written: File too large'):
                    write_atomically(bytes(2_000_000), target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert [path.name for path in tmp_path.rglob('*')] == ['file.pth']
        assert (tmp_path / 'file.pth').read_bytes() == b'old'

    def test_several_files_are_written_or_none(self, tmp_path):
        (tmp_path / 'old').write_bytes(b'old')
        (tmp_path / 'folder').mkdir()
        for last in ('folder', 'old/below/a/file'):
            files = {tmp_path / name: name.encode for name in ('old', 'new/folder/file', last)}
            with pytest.raises(CheckpointError, match=r'cannot be written.*Nothing was changed'):
                write_all(files)
            assert sorted(path.name for path in tmp_path.rglob('*')) == ['folder', 'old']
            assert (tmp_path / 'old').read_bytes() == b'old'
        write_all(dict(list(files.items())[:2]))
        assert (tmp_path / 'new/folder/file').read_bytes() == b'new/folder/file'

    def test_the_error_names_what_was_written_before_it(self, tmp_path):
        def disturb() -> bytes:
            (tmp_path / 'b').mkdir()
            return b'c'

        files = {tmp_path / 'a': b'a'.lower, tmp_path / 'b': b'b'.lower, tmp_path / 'c': disturb}
        with pytest.raises(CheckpointError, match=rf'b \(.*cannot be written: .*\. Written before it: {tmp_path}/a\.$'):
            write_all(files)
        assert sorted(path.name for path in tmp_path.iterdir()) == ['a', 'b']

    def test_an_interrupted_write_leaves_nothing(self, tmp_path, monkeypatch):
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, 'replace', interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_atomically(b'content', tmp_path / 'file.pth')
        assert not list(tmp_path.iterdir())


class Color(str, enum.Enum):
    RED = 'red'


class TestPlainData:
    @pytest.mark.parametrize(
        ('value', 'expected'),
        [
            (None, None),
            (np.float64(0.5), 0.5),
            (np.int32(3), 3),
            (np.bool_(True), True),
            (np.array([[1, 2]]), [[1, 2]]),
            (OrderedDict(classes=('a', 'b'), palette=[(0, 0, 0)]), {'classes': ('a', 'b'), 'palette': [(0, 0, 0)]}),
        ],
    )
    def test_python_types(self, value, expected):
        plain = plain_data(value)
        assert plain == expected and type(plain) is type(expected)

    def test_parameters_become_tensors(self):
        plain = plain_data({'a': torch.nn.Parameter(torch.ones(1))})['a']
        assert type(plain) is torch.Tensor and not plain.requires_grad

    @pytest.mark.parametrize(
        ('value', 'name'), [(Namespace(), 'argparse.Namespace'), ([Color.RED], 'Color'), ({'a': print}, 'builtin')]
    )
    def test_other_types_are_refused_by_name(self, value, name):
        with pytest.raises(TypeError, match=name):
            plain_data(value)

    def test_plain_metadata_is_kept(self):
        endless = []
        endless.append(endless)
        meta = dict(epoch=np.int64(3), args=Namespace(lr=1), endless=endless)
        kept, dropped = plain_meta(Checkpoint('file.pth', {}, entries={'optimizer': {}, 'meta': meta}))
        assert kept == {'epoch': 3}
        assert [name.split()[0] for name in dropped] == ['optimizer', 'meta.args', 'meta.endless']

    @pytest.mark.parametrize('entries', [{}, {'meta': 3}])
    def test_without_metadata(self, entries):
        assert plain_meta(Checkpoint('file.pth', {}, entries=entries)) == ({}, [])


def test_content_that_cannot_be_made_changes_nothing(tmp_path):
    def fail() -> bytes:
        raise OSError(5, 'Input/output error')

    with pytest.raises(CheckpointError, match=r'a\.txt .*cannot be written: Input/output error'):
        write_all({tmp_path / 'a.txt': fail})
    assert not any(tmp_path.iterdir())
