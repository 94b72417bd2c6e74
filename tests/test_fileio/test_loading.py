"""Checkpoints are opened without executing code, each once, and MMEngine's loaders are restored."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmstvit.errors import CheckpointError
from mmstvit.fileio import loading, open_checkpoint, safe_loading

from ..helpers import Harm, assert_equal

WEIGHTS = {'weight': torch.ones(2, 2), 'bias': torch.ones(2)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save({'state_dict': WEIGHTS}, tmp_path / 'file.pth')
    return tmp_path / 'file.pth'


@pytest.fixture
def safe() -> Iterator[None]:
    with safe_loading():
        yield


class TestRestored:
    @pytest.mark.parametrize('trust', [False, True])
    def test_loaders_settings_and_kept_checkpoints(self, file, trust):
        schemes, settings = CheckpointLoader._schemes, loading._settings
        items = list(schemes.items())
        with pytest.raises(KeyError), safe_loading(trust):
            open_checkpoint(file, keep=True)
            assert dict(CheckpointLoader._schemes) != dict(schemes)
            raise KeyError
        assert CheckpointLoader._schemes is schemes and list(schemes.items()) == items
        assert loading._settings is settings and settings.kept is None

    def test_inside_each_other(self, tmp_path):
        torch.save({'state_dict': WEIGHTS, 'other': Harm(os.mkdir, str(tmp_path / 'made'))}, tmp_path / 'file.pth')
        with safe_loading():
            with safe_loading(trust=True):
                pass
            with pytest.raises(CheckpointError, match='Refusing to load'):
                CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'))


class TestOpen:
    def test_weights_meta_and_config(self, tmp_path):
        meta = {'epoch': 3, 'cfg': "model = dict(type='STViT')\n"}
        torch.save({'state_dict': WEIGHTS, 'meta': meta, 'optimizer': {'state': {}}}, tmp_path / 'file.pth')
        checkpoint = open_checkpoint(tmp_path / 'file.pth')
        assert_equal(checkpoint.weights, WEIGHTS)
        assert checkpoint.meta == meta
        assert checkpoint.config == {'model': {'type': 'STViT'}}
        assert list(checkpoint.entries) == ['meta', 'optimizer']

    def test_a_file_of_weights_alone_has_no_meta_and_no_config(self, tmp_path):
        torch.save(WEIGHTS, tmp_path / 'file.pth')
        checkpoint = open_checkpoint(tmp_path / 'file.pth')
        assert_equal(checkpoint.weights, WEIGHTS)
        assert checkpoint.entries == checkpoint.meta == {} and checkpoint.config is None

    def test_other_content_stays_for_a_run_to_resume(self, tmp_path, safe):
        rest = {'meta': {'epoch': 3}, 'optimizer': {'state': {}}}
        torch.save({'state_dict': {f'module.{k}': v for k, v in WEIGHTS.items()}, **rest}, tmp_path / 'file.pth')
        read = CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'), 'cpu')
        assert_equal(read.pop('state_dict'), WEIGHTS)
        assert read == rest

    def test_weights_are_converted(self, file):
        with safe_loading(convert=lambda weights: {f'new.{key}': value for key, value in weights.items()}):
            assert set(open_checkpoint(file).weights) == {'new.weight', 'new.bias'}
            assert set(CheckpointLoader.load_checkpoint(str(file))['state_dict']) == {'new.weight', 'new.bias'}
        assert set(open_checkpoint(file).weights) == set(WEIGHTS)

    @pytest.mark.parametrize('prefix', ['net', 'net.'])
    def test_a_prefix(self, tmp_path, prefix):
        torch.save({**{f'net.{key}': value for key, value in WEIGHTS.items()}, 'x': torch.ones(1)}, tmp_path / 'a.pth')
        selected = open_checkpoint(tmp_path / 'a.pth').select(prefix)
        assert_equal(selected.weights, WEIGHTS)
        assert selected.dropped == ['x']
        with pytest.raises(CheckpointError, match=r"a\.pth: no weight has the prefix 'encoder\.'"):
            open_checkpoint(tmp_path / 'a.pth').select('encoder')

    @pytest.mark.parametrize('address', ['s3://bucket/a.pth', 'open-mmlab:s3://a', 'torchvision://vgg11', 'pavi://a'])
    def test_other_schemes_are_refused(self, safe, address):
        for read in (CheckpointLoader.load_checkpoint, open_checkpoint):
            with pytest.raises(CheckpointError) as caught:
                read(address)
            assert address in caught.value.problem and 'Download it and name the file' in caught.value.remedy


def test_a_check_and_the_run_read_a_file_once(file, reads):
    with safe_loading():
        checked = open_checkpoint(file, keep=True)
        read = CheckpointLoader.load_checkpoint(os.path.relpath(file), 'meta')['state_dict']
        assert len(reads) == 1 and read['weight'] is checked.weights['weight']
        assert not loading._settings.kept  # any longer
    for _ in range(2):
        open_checkpoint(file, keep=True)
    assert len(reads) == 3
