"""``mmstvit.checkpoint.read_checkpoint``: what people save comes out as it was; what harms or is broken is refused."""

import argparse
import gzip
import io
import itertools
import json
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmstvit.errors import CheckpointError
from mmstvit.fileio import check_finite, read_checkpoint

WEIGHTS = {'a.weight': torch.arange(6.0).reshape(2, 3), 'a.count': torch.tensor(3)}


class Harm:
    """Unpickled, it calls a function."""

    def __init__(self, function: object, *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple:
        return self.call


def saved(path: Path, content: object, **options: object) -> Path:
    torch.save(content, path, **options)
    return path


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert '\n' not in message
    return message


@pytest.fixture
def file(tmp_path):
    return tmp_path / 'file.pth'


class TestWhatPeopleSave:
    @pytest.mark.parametrize('zipped', [True, False])
    def test_a_published_file_with_the_options_of_its_training(self, file, zipped):
        options = argparse.Namespace(lr=0.1, data=argparse.Namespace(size=224))
        content = {'model': WEIGHTS, 'epoch': 299, 'args': options}
        saved(file, content, _use_new_zipfile_serialization=zipped)
        read = read_checkpoint(file)
        assert read['args'] == options and read['epoch'] == 299
        assert torch.equal(read['model']['a.weight'], WEIGHTS['a.weight'])

    def test_the_log_of_mmengine_is_a_log_again(self, file):
        log = HistoryBuffer([0.5, 0.25], [1, 1])
        saved(file, {'message_hub': {'log_scalars': OrderedDict(loss=log), 'runtime_info': {'best': np.float64(0.5)}}})
        read = read_checkpoint(file)['message_hub']
        assert type(read['log_scalars']) is OrderedDict
        loss = read['log_scalars']['loss']
        assert type(loss) is HistoryBuffer
        assert [values.tolist() for values in loss.data] == [[0.5, 0.25], [1, 1]]
        loss.update(0.75)
        assert loss.statistics('mean') == 0.5 and loss.max_length == 1000000
        assert type(read['runtime_info']['best']) is np.float64 and read['runtime_info']['best'] == 0.5

    @pytest.mark.parametrize(
        'array',
        [
            np.arange(6.0).reshape(2, 3),
            np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
            np.array([True, False]),
            np.array([1, 2], dtype='>i8'),
            np.array(['cat', 'mouse']),
            np.array(7, dtype=np.uint8),
            np.empty((0, 4), np.float32),
        ],
        ids=lambda array: f'{array.dtype}{array.shape}',
    )
    def test_arrays(self, file, array):
        read = read_checkpoint(saved(file, {'meta': (array, [array])}))['meta'][0]
        assert type(read) is np.ndarray and read.dtype == array.dtype and read.shape == array.shape
        assert (read == array).all()
        read[...] = 0  # not a view of what cannot be written

    def test_containers_that_are_shared_stay_shared(self, file):
        classes = ('cat', 'dog')
        read = read_checkpoint(saved(file, [classes, {'classes': classes}]))
        assert read[0] is read[1]['classes']

    def test_a_container_that_contains_itself(self, file):
        content = {'state_dict': WEIGHTS}
        content['self'] = [content]
        read = read_checkpoint(saved(file, content))
        assert read['self'][0] is read

    def test_a_run_of_mmengine_with_all_that_it_saves(self, file):
        model = nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
        content = {
            'state_dict': model.state_dict(),
            'optimizer': optimizer.state_dict(),
            'param_schedulers': [{k: v for k, v in schedule.state_dict().items() if not callable(v)}],
            'meta': {'epoch': 1, 'dataset_meta': {'classes': ('a',), 'palette': [(1, 2, 3)]}, 'seed': None},
        }
        read = read_checkpoint(saved(file, content))
        optimizer.load_state_dict(read['optimizer'])
        assert list(read['state_dict']) == ['weight', 'bias'] and read['meta'] == content['meta']
        assert read['state_dict']._metadata == content['state_dict']._metadata

    def test_safetensors_by_name_and_by_content(self, tmp_path):
        from safetensors.torch import save_file

        for name in ('file.safetensors', 'renamed.pth'):
            save_file(WEIGHTS, tmp_path / name)
            read = read_checkpoint(tmp_path / name)
            assert {key: tensor.tolist() for key, tensor in read.items()} == {
                key: tensor.tolist() for key, tensor in WEIGHTS.items()
            }

    def test_mmap_and_location(self, file):
        saved(file, WEIGHTS)
        assert torch.equal(read_checkpoint(file, mmap=True)['a.weight'], WEIGHTS['a.weight'])
        assert read_checkpoint(file, map_location='meta')['a.weight'].is_meta

    def test_what_the_user_allowed_elsewhere_stays_allowed(self, file):
        before = torch.serialization.get_safe_globals()
        torch.serialization.add_safe_globals([Path])
        try:
            read_checkpoint(saved(file, WEIGHTS))
            assert Path in torch.serialization.get_safe_globals()
            assert 'pathlib' in refusal(saved(file, {'path': Path('x')})), 'and is not allowed here'
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(before)


def touch(path: Path) -> dict[str, object]:
    """Contents that make a file when they are executed, by the name that the refusal tells."""
    made = str(path)
    return {
        'system': Harm(os.system, f'touch {made}'),
        'eval': Harm(eval, f"open({made!r}, 'w').close()"),
        'exec': Harm(exec, f"open({made!r}, 'w').close()"),
        'open': Harm(open, made, 'w'),
    }


class TestHarm:
    @pytest.mark.parametrize('name', touch(Path()))
    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    @pytest.mark.parametrize('wrap', [
        lambda harm: harm,
        lambda harm: {'model': {**WEIGHTS, 'head.weight': harm}},
        lambda harm: {'model': WEIGHTS, 'args': argparse.Namespace(lr=harm)},
        lambda harm: {'state_dict': OrderedDict(WEIGHTS), 'message_hub': {'log_scalars': [HistoryBuffer(), harm]}},
    ], ids=['bare', 'weights', 'args', 'log'])  # fmt: skip
    def test_nothing_is_executed_and_the_refusal_says_what_to_do(self, tmp_path, file, name, zipped, wrap):
        made = tmp_path / 'made'
        saved(file, wrap(touch(made)[name]), _use_new_zipfile_serialization=zipped)
        message = refusal(file)
        assert not made.exists()
        assert f'{name}, as a harmful file would; nothing of it was executed' in message
        assert '--trust-checkpoint' in message

    @pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_plain_pickle(self, tmp_path, file, protocol):
        made = tmp_path / 'made'
        file.write_bytes(pickle.dumps(touch(made)['system'], protocol))
        refusal(file)
        assert not made.exists()

    def test_the_files_would_do_harm(self, tmp_path, file):
        """Else the tests above could not fail."""
        made = tmp_path / 'made'
        saved(file, {'model': {'weight': touch(made)['system']}})
        read_checkpoint(file, trust=True)
        assert made.exists()

    def test_through_getattr_nothing_is_to_be_had(self, file):
        """A file may name ``getattr``, as MMEngine's log does, but it gives nothing."""
        read = read_checkpoint(saved(file, {'taken': Harm(getattr, HistoryBuffer, '__init__')}))
        assert read == {'taken': None}

    @pytest.mark.parametrize(
        'content',
        [
            np.array([object, 1], dtype=object),
            np.array([(1, 2.0)], dtype=[('a', 'i4'), ('b', 'f4')]),
            np.dtype('O'),
            np.array(['2020-01-01'], dtype='M8[D]'),
        ],
        ids=str,
    )
    def test_arrays_of_anything_but_numbers_and_strings(self, file, content):
        message = refusal(saved(file, {'state_dict': WEIGHTS, 'meta': content}))
        assert 'holds what no checkpoint needs (arrays of dtype' in message and '--trust-checkpoint' in message

    def test_a_call_of_what_getattr_gave(self, file):
        """The refusal has the reason, not PyTorch's recommendation to load the file unsafely."""
        pickled = (
            b'\x80\x02cbuiltins\ngetattr\ncmmengine.logging.history_buffer\nHistoryBuffer\n'
            b'X\x0e\x00\x00\x00__subclasses__\x86R)R.'
        )
        with zipfile.ZipFile(saved(file, WEIGHTS)) as archive:
            parts = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(file, 'w') as archive:
            for name, data in parts.items():
                archive.writestr(name, pickled if name.endswith('data.pkl') else data)
        message = refusal(file)
        assert 'reduce for unrecognized function' in message and 'nothing of it was executed' in message
        assert 'weights_only' not in message

    def test_a_whole_model_names_its_class(self, file):
        assert 'torch.nn.modules.linear.Linear' in refusal(saved(file, nn.Linear(2, 2)))

    def test_trusted_but_of_a_class_that_is_not_installed(self, file):
        file.write_bytes(b'\x80\x02cnowhere\nThing\n.')
        assert 'nowhere' in refusal(file, trust=True)


def archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tar(name: str = 'weights.pth') -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w', format=tarfile.USTAR_FORMAT, encoding='latin-1') as file:
        file.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.zeros(3))
    return buffer.getvalue()


DRIVE = b'<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head></html>'


class TestWrongFiles:
    @pytest.mark.parametrize(('content', 'words'), [
        (b'', ['is empty (0 bytes)', 'Download it again']),
        (DRIVE, ['a web page (HTML)', 'failed download', 'Google Drive']),
        (b'\n\n  <html>', ['a web page (HTML)']),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', ['a web page']),
        (b'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n', ['git lfs pull']),
        (b'Too many users have viewed or downloaded this file', ["begins with 'Too many users"]),
        (json.dumps({'error': 404}).encode(), ['a text file', 'error']),
        (gzip.compress(b'weights'), ['gzip', 'unpack it first']),
        (tar(), ['tar', 'unpack it first']),
        (tar('\x80\x02'), ['tar', 'unpack it first']),
        (b'\x89PNG\r\n\x1a\n' + bytes(100), ['PNG image', 'torch.save']),
        (b'\xff\xd8\xff\xe0' + bytes(100), ['JPEG image']),
        (b'\x89HDF\r\n\x1a\n' + bytes(100), ['HDF5']),
        (b'\x08\x07\x12\x07pytorch' + bytes(100), ['ONNX']),
        (bytes(1000), ['unknown format', '00 00']),
        (torchscript(), ['TorchScript']),
        (npz(), ['zip archive of something else', 'weight.npy']),
        (archive(**{'word/document.xml': b''}), ['zip archive of something else']),
        (pickle.dumps({'weights': [1, 2]}, 2), ['pickle of something else']),
        (pickle.dumps({'weights': [1, 2]}, 5), ['pickle of something else']),
        (b'\x80', ['damaged']),
        (b'\x10\0\0\0\0\0\0\0{"a": not json at all', ['safetensors']),
    ], ids=itertools.count())  # fmt: skip
    def test_what_it_is_and_what_to_do(self, file, content, words):
        file.write_bytes(content)
        message = refusal(file)
        for word in words:
            assert word in message
        with pytest.raises(CheckpointError):
            read_checkpoint(file, trust=True)

    def test_no_file_and_a_folder(self, tmp_path):
        assert refusal(tmp_path / 'gone.pth').endswith('gone.pth does not exist.')
        assert 'is a folder' in refusal(tmp_path)

    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    def test_cut_off_anywhere(self, file, zipped):
        saved(file, {'state_dict': WEIGHTS}, _use_new_zipfile_serialization=zipped)
        whole = file.read_bytes()
        for length in range(0, len(whole) - 1, len(whole) // 40):
            file.write_bytes(whole[:length])
            message = refusal(file)
            assert 'Download it again' in message or 'was expected' in message

    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    def test_a_byte_that_is_not_what_it_was(self, file, zipped):
        """Wherever it is: refused in one line, or the damage is where it does not matter to the reader."""
        saved(file, {'state_dict': WEIGHTS}, _use_new_zipfile_serialization=zipped)
        whole = file.read_bytes()
        refused = 0
        for place in range(0, len(whole), 7):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            try:
                read_checkpoint(file)
            except CheckpointError as error:
                assert '\n' not in str(error)
                refused += 1
        assert refused

    def test_a_changed_weight_of_a_zip_is_noticed(self, file):
        saved(file, {'state_dict': {'weight': torch.full((64,), 1.5)}})
        whole = file.read_bytes()
        place = whole.index(np.full(64, 1.5, np.float32).tobytes())
        file.write_bytes(whole[:place] + b'\x01' + whole[place + 1 :])
        assert 'damaged' in refusal(file)

    def test_truncated_safetensors(self, tmp_path):
        from safetensors.torch import save_file

        path = tmp_path / 'file.safetensors'
        save_file(WEIGHTS, path)
        path.write_bytes(path.read_bytes()[:-8])
        assert 'Download it again' in refusal(path)


class TestFinite:
    def test_finite_weights_pass(self):
        check_finite({**WEIGHTS, 'half': torch.tensor(65504.0, dtype=torch.float16), 'name': 'x'}, 'a.pth')

    def test_the_first_is_named_with_counts(self):
        weights = {
            'good': torch.ones(2),
            'bad': torch.tensor([1, float('nan'), float('inf'), -float('inf')]),
            'worse': torch.tensor(float('nan'), dtype=torch.bfloat16),
            'eight': torch.tensor([float('nan')]).to(torch.float8_e4m3fn),
        }
        with pytest.raises(
            CheckpointError, match=r'^a\.pth has NaN or Inf in 3 of 4 tensors, first in bad \(1 NaN and 2'
        ):
            check_finite(weights, 'a.pth')
