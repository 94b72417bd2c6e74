"""``safe_loading`` reads checkpoints for MMEngine without executing code, each once, and restores its loaders."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.runner import CheckpointLoader, load_checkpoint
from torch import nn

from mmstvit.errors import CheckpointError
from mmstvit.fileio import loading, read_content, read_weights, safe_loading

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


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which torch keeps downloaded checkpoints."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    (tmp_path / 'checkpoints').mkdir()
    return tmp_path / 'checkpoints'


class TestRestored:
    @pytest.mark.parametrize('trust', [False, True])
    def test_loaders_settings_and_kept_content(self, file, trust):
        schemes, settings = CheckpointLoader._schemes, loading._settings
        items = list(schemes.items())
        with pytest.raises(KeyError), safe_loading(trust):
            read_content(str(file), keep=True)
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

    def test_without_safe_loading_mmengine_reads_and_executes_as_before(self, tmp_path):
        torch.save({'state_dict': {}, 'other': Harm(os.mkdir, str(tmp_path / 'made'))}, tmp_path / 'file.pth')
        CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'), 'cpu')
        assert (tmp_path / 'made').exists()


class TestRead:
    @pytest.mark.parametrize('prefix', ['', 'module.module.'])
    def test_mmengine_loads_every_wrapping(self, tmp_path, safe, prefix):
        torch.save({'model': {f'{prefix}{key}': value for key, value in WEIGHTS.items()}}, tmp_path / 'file.pth')
        model = nn.Linear(2, 2)
        load_checkpoint(model, str(tmp_path / 'file.pth'))
        assert_equal(model.state_dict(), WEIGHTS)

    def test_other_content_stays_for_a_run_to_resume(self, tmp_path, safe):
        rest = {'meta': {'epoch': 3}, 'optimizer': {'state': {}}}
        torch.save({'state_dict': {f'module.{k}': v for k, v in WEIGHTS.items()}, **rest}, tmp_path / 'file.pth')
        read = CheckpointLoader.load_checkpoint(str(tmp_path / 'file.pth'), 'cpu')
        assert_equal(read.pop('state_dict'), WEIGHTS)
        assert read == rest

    def test_weights_are_converted(self, file):
        with safe_loading(convert=lambda weights: {f'new.{key}': value for key, value in weights.items()}):
            assert set(read_weights(str(file)).weights) == {'new.weight', 'new.bias'}
            assert set(CheckpointLoader.load_checkpoint(str(file))['state_dict']) == {'new.weight', 'new.bias'}
        assert set(read_weights(str(file)).weights) == set(WEIGHTS)

    @pytest.mark.parametrize('prefix', ['net', 'net.'])
    def test_a_prefix(self, tmp_path, prefix):
        torch.save({**{f'net.{key}': value for key, value in WEIGHTS.items()}, 'x': torch.ones(1)}, tmp_path / 'a.pth')
        source = read_weights(str(tmp_path / 'a.pth'), prefix)
        assert_equal(source.weights, WEIGHTS)
        assert source.dropped == ['x']
        with pytest.raises(CheckpointError, match=r"a\.pth: no weight has the prefix 'encoder\.'"):
            read_weights(str(tmp_path / 'a.pth'), 'encoder')


class TestOnce:
    @pytest.fixture
    def reads(self, monkeypatch) -> Counter:
        """Number of reads of each file."""
        reads = Counter()

        def count(path: str, *args: object, **options: object) -> object:
            reads[Path(path).name] += 1
            return read(path, *args, **options)

        read = loading.read_checkpoint
        monkeypatch.setattr(loading, 'read_checkpoint', count)
        return reads

    def test_a_check_and_the_run_read_a_file_once(self, file, safe, reads):
        checked = read_weights(str(file), keep=True)
        read = CheckpointLoader.load_checkpoint(os.path.relpath(file), 'meta')['state_dict']
        assert reads == {'file.pth': 1}
        assert read['weight'] is checked.weights['weight']

    def test_content_is_not_kept_any_longer(self, file, safe, reads):
        read_content(str(file), keep=True)
        read_content(str(file))
        assert not loading._settings.kept
        read_content(str(file))
        assert reads == {'file.pth': 2}

    def test_a_changed_file_is_read_again(self, file, safe, reads):
        read_content(str(file), keep=True)
        torch.save({'weight': torch.zeros(1)}, file)
        os.utime(file, (0, 0))
        assert read_content(str(file)).keys() == {'weight'}
        assert reads == {'file.pth': 2}

    def test_nothing_is_kept_outside_of_safe_loading(self, file, reads):
        for _ in range(2):
            read_content(str(file), keep=True)
        assert reads == {'file.pth': 2}


class TestAddresses:
    @pytest.mark.parametrize('address', ['s3://bucket/a.pth', 'open-mmlab:s3://a', 'torchvision://vgg11', 'pavi://a'])
    def test_other_schemes_are_refused(self, safe, address):
        for read in (CheckpointLoader.load_checkpoint, read_content):
            with pytest.raises(CheckpointError) as caught:
                read(address, 'cpu')
            assert address in caught.value.problem and 'Download it and name the file' in caught.value.remedy

    def test_a_downloaded_file_is_not_executed(self, tmp_path, cache):
        """With and without ``safe_loading``: ``init_cfg`` of STViT reads addresses in the libraries' tools too."""
        address = 'https://example.org/models/file.pth?download=1'
        torch.save({'model': WEIGHTS}, cache / 'file.pth')
        assert_equal(read_weights(address).weights, WEIGHTS)
        torch.save({'model': Harm(os.mkdir, str(tmp_path / 'made'))}, cache / 'file.pth')
        with pytest.raises(CheckpointError, match='Nothing was executed'):
            read_weights(address)
        with safe_loading(), pytest.raises(CheckpointError, match='Nothing was executed'):
            CheckpointLoader.load_checkpoint(address)
        assert not (tmp_path / 'made').exists()

    def test_a_failed_download_leaves_no_file(self, cache):
        with pytest.raises(CheckpointError, match=r'http://127\.0\.0\.1:9/file\.pth cannot be downloaded'):
            read_weights('http://127.0.0.1:9/file.pth')
        assert not list(cache.iterdir())
