"""``read_checkpoint`` returns what was saved, and refuses harmful and broken files without executing code."""

import argparse
import io
import itertools
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmstvit.errors import CheckpointError
from mmstvit.fileio import read_checkpoint

from ..helpers import Harm

WEIGHTS = {'a.weight': torch.arange(6.0).reshape(2, 3), 'a.count': torch.tensor(3)}


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


class TestContent:
    @pytest.mark.parametrize('zipped', [True, False])
    def test_options_of_a_published_training_run(self, file, zipped):
        options = argparse.Namespace(lr=0.1, data=argparse.Namespace(size=224))
        content = {'model': WEIGHTS, 'epoch': 299, 'args': options}
        saved(file, content, _use_new_zipfile_serialization=zipped)
        read = read_checkpoint(file)
        assert read['args'] == options and read['epoch'] == 299
        assert torch.equal(read['model']['a.weight'], WEIGHTS['a.weight'])

    def test_log_of_mmengine(self, file):
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
            np.array([1, 2], dtype='>i8'),
            np.array(['cat', 'mouse']),
            np.empty((0, 4), np.float32),
        ],
        ids=lambda array: f'{array.dtype}{array.shape}',
    )
    def test_arrays(self, file, array):
        read = read_checkpoint(saved(file, {'meta': (array, [array])}))['meta'][0]
        assert type(read) is np.ndarray and read.dtype == array.dtype and read.shape == array.shape
        assert (read == array).all()
        read[...] = 0  # not a read-only view

    def test_shared_containers_stay_shared(self, file):
        classes = ('cat', 'dog')
        read = read_checkpoint(saved(file, [classes, {'classes': classes}]))
        assert read[0] is read[1]['classes']

    def test_recursive_containers(self, file):
        content = {'state_dict': WEIGHTS}
        content['self'] = [content]
        read = read_checkpoint(saved(file, content))
        assert read['self'][0] is read

    @pytest.mark.parametrize('pair', [lambda entry: (entry, entry), lambda entry: [entry, entry]])
    def test_containers_that_no_walk_leaves_are_refused(self, file, pair):
        content = ()
        for _ in range(45):
            content = pair(content)
        with pytest.raises(CheckpointError, match='hold each other'):
            read_checkpoint(saved(file, {'state_dict': WEIGHTS, 'meta': content}))

    def test_checkpoint_of_a_run(self, file):
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

    def test_globals_that_another_package_allowed_are_refused_here_and_stay_allowed_there(self, file):
        with torch.serialization.safe_globals([Path]):
            read_checkpoint(saved(file, WEIGHTS))
            assert Path in torch.serialization.get_safe_globals()
            assert 'pathlib' in refusal(saved(file, {'path': Path('x')}))
        assert Path not in torch.serialization.get_safe_globals()


def touch(path: Path) -> dict[str, object]:
    """Return objects that make a file when they are executed, by the names that the refusal mentions."""
    return {'posix.system': Harm(os.system, f'touch {path}'), 'eval': Harm(eval, f"open({str(path)!r}, 'w').close()")}


class TestHarm:
    @pytest.mark.parametrize('name', touch(Path()))
    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    @pytest.mark.parametrize('wrap', [
        lambda harm: harm,
        lambda harm: {'model': {**WEIGHTS, 'head.weight': harm}},
        lambda harm: {'model': WEIGHTS, 'args': argparse.Namespace(lr=harm)},
        lambda harm: {'state_dict': OrderedDict(WEIGHTS), 'message_hub': {'log_scalars': [HistoryBuffer(), harm]}},
    ], ids=['bare', 'weights', 'args', 'log'])  # fmt: skip
    def test_code_is_not_executed_and_the_refusal_names_it(self, tmp_path, file, name, zipped, wrap):
        made = tmp_path / 'made'
        saved(file, wrap(touch(made)[name]), _use_new_zipfile_serialization=zipped)
        message = refusal(file)
        assert not made.exists()
        assert message.startswith(f'Refusing to load {file}: ')
        assert name in message and '--trust-checkpoint' in message
        if zipped:
            call = name if '.' in name else f'builtins.{name}'
            assert f'unpickling it would call {call}. Nothing was executed. Use a safetensors file' in message

    @pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
    def test_plain_pickles(self, tmp_path, file, protocol):
        made = tmp_path / 'made'
        file.write_bytes(pickle.dumps(touch(made)['posix.system'], protocol))
        refusal(file)
        assert not made.exists()

    def test_trusted_files_are_executed(self, tmp_path, file):
        """The tests above could not fail otherwise."""
        made = tmp_path / 'made'
        saved(file, {'model': {'weight': touch(made)['posix.system']}})
        read_checkpoint(file, trust=True)
        assert made.exists()

    def test_getattr_returns_none(self, file):
        """MMEngine's log names ``getattr``; a stand-in is called in its place."""
        read = read_checkpoint(saved(file, {'taken': Harm(getattr, HistoryBuffer, '__init__')}))
        assert read == {'taken': None}

    @pytest.mark.parametrize(
        'content', [np.array([None, 1], dtype=object), np.array([(1, 2.0)], dtype=[('a', 'i4'), ('b', 'f4')])], ids=str
    )
    def test_arrays_of_anything_but_numbers_and_strings(self, file, content):
        message = refusal(saved(file, {'state_dict': WEIGHTS, 'meta': content}))
        assert 'arrays of dtype' in message and '--trust-checkpoint' in message

    def test_a_call_of_the_result_of_getattr(self, file):
        """The refusal has torch's reason without torch's advice to load the file unsafely."""
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
        assert 'reduce for unrecognized function' in message and 'Nothing was executed' in message
        assert 'weights_only' not in message

    def test_a_pickled_module_is_refused_with_its_class(self, file):
        assert 'torch.nn.modules.linear.Linear' in refusal(saved(file, nn.Linear(2, 2)))

    def test_a_trusted_file_of_a_class_that_is_not_installed(self, file):
        file.write_bytes(b'\x80\x02cnowhere\nThing\n.')
        assert 'nowhere' in refusal(file, trust=True)


def torchscript() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), buffer)
    return buffer.getvalue()


def test_elements_of_a_tensor_do_not_share_memory(file):
    """A fused optimizer writes as many values as a shape has, whatever the strides."""
    values = torch.arange(6.0)
    tensors = {
        'same': values[5:].expand(3, 2),
        'rows': values.as_strided((2, 3), (1, 1)),
        'flipped': values.view(2, 3).T,
    }
    read = read_checkpoint(saved(file, {'optimizer': tensors}))['optimizer']
    for name, tensor in tensors.items():
        assert read[name].equal(tensor)
        assert len({entry.data_ptr() for entry in read[name].flatten(0, 1)}) == 6


class TestWrongFiles:
    @pytest.mark.parametrize('mmap', [True, False])
    def test_content_that_needs_more_memory_than_the_file_shows(self, file, mmap):
        saved(file, torch.zeros(1).expand(10**9))
        assert 'larger than its data' in refusal(file, mmap=mmap)
        with (
            zipfile.ZipFile(saved(file, WEIGHTS)) as archive,
            zipfile.ZipFile(f'{file}2', 'w', zipfile.ZIP_DEFLATED) as new,
        ):
            for name in archive.namelist():
                new.writestr(name, archive.read(name))
        os.replace(f'{file}2', file)
        assert 'compressed entries' in refusal(file, mmap=mmap)

    @pytest.mark.parametrize(
        ('content', 'problem', 'remedy'),
        [
            (b'', 'it is empty', 'Download it again'),
            (b'\n <!DOCTYPE html><title>Google Drive</title>', 'a web page (HTML)', 'Download it again'),
            (b'version https://git-lfs.github.com/spec/v1\noid', 'a pointer of Git LFS', 'git lfs pull'),
            (b'Too many users', "begins with b'Too many'", 'Download it again'),
            (torchscript(), 'torchscript', 'Download it again'),
            (pickle.dumps({'weights': [1, 2]}, 2), 'cannot be loaded', 'Download it again'),
            (pickle.dumps({'weights': [1, 2]}, 5), 'Refusing to load', 'Download it again'),
            (b'\x80', 'cannot be loaded', 'Download it again'),
            (b'\x10\0\0\0\0\0\0\0{"a": not json at all', 'not a safetensors file', 'Download it again'),
        ],
        ids=itertools.count(),
    )
    def test_problem_and_remedy(self, file, content, problem, remedy):
        file.write_bytes(content)
        with pytest.raises(CheckpointError) as caught:
            read_checkpoint(file)
        assert str(file) in caught.value.problem and problem in caught.value.problem
        assert remedy in caught.value.remedy

    def test_a_missing_file_and_a_folder(self, tmp_path):
        assert refusal(tmp_path / 'gone.pth').endswith('gone.pth does not exist.')
        assert refusal(tmp_path).endswith('is a folder. Name a .pth file; there is none in it.')

    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    def test_truncated_anywhere(self, file, zipped):
        saved(file, {'state_dict': WEIGHTS}, _use_new_zipfile_serialization=zipped)
        whole = file.read_bytes()
        for length in range(0, len(whole) - 1, len(whole) // 40):
            file.write_bytes(whole[:length])
            assert 'Download it again' in refusal(file)

    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    def test_a_changed_byte_anywhere(self, file, zipped):
        """The file is refused in one line, unless the reader does not use that byte."""
        saved(file, {'state_dict': WEIGHTS}, _use_new_zipfile_serialization=zipped)
        whole = file.read_bytes()
        refused = 0
        for place in range(0, len(whole), 23):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
            try:
                read_checkpoint(file)
            except CheckpointError as error:
                assert '\n' not in str(error)
                refused += 1
        assert refused

    def test_a_changed_weight_in_a_zip(self, file):
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
