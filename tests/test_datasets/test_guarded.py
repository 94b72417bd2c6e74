"""Unreadable files and unusable datasets in training and evaluation: an error with path and reason, or skipped."""

import copy
import logging
import zipfile
from pathlib import Path

import mmcv
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmstvit.datasets import GuardedDataset, skipped_files
from mmstvit.errors import DataError

from .tiny_data import COUNT, LIBRARIES, MAKERS, draw, images, write

BROKEN = {
    'garbage': lambda content: b'not an image',
    'empty': lambda content: b'',
    'truncated': lambda content: content[: len(content) // 2],
}


def spoil(path: Path, how: str) -> None:
    if how == 'missing':
        path.unlink()
    else:
        path.write_bytes(BROKEN[how](path.read_bytes()))


@pytest.fixture(params=LIBRARIES)
def library(request):
    """Each of the libraries, as the default scope."""
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


@pytest.fixture
def mmpretrain():
    """MMPreTrain as the default scope, where the library does not matter."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        yield 'mmpretrain'


def guard(cfg: dict, **options: object) -> GuardedDataset:
    return DATASETS.build(dict(type='mmstvit.GuardedDataset', dataset=cfg, **options))


def index_of(dataset: Dataset, path: Path) -> int:
    return next(i for i in range(len(dataset)) if dataset.get_data_info(i)['img_path'] == str(path))


def path_of(sample: dict) -> str:
    return sample['data_samples'].img_path


def check_fails(dataset: Dataset, broken: Path) -> None:
    with pytest.raises(DataError, match=f'Cannot read {broken}: ') as error:
        dataset[index_of(dataset, broken)]
    assert 'verify_dataset.py' in error.value.remedy and 'unreadable=skip' in error.value.remedy
    assert all(dataset[i] is not None for i in range(COUNT) if i != index_of(dataset, broken))


def check_skips(dataset: Dataset, broken: Path) -> None:
    for _ in range(2):
        assert path_of(dataset[index_of(dataset, broken)]) != str(broken)
    ((path, (reason, count)),) = skipped_files(dataset).items()
    assert path == str(broken) and reason and count >= 2


@pytest.mark.parametrize(
    ('library', 'how'),
    [('mmdet', 'truncated'), ('mmseg', 'garbage'), ('mmpretrain', 'empty'), ('mmpretrain', 'missing')],
    indirect=['library'],
)
def test_an_unreadable_image_fails_or_is_skipped(library, how, tmp_path):
    cfg = MAKERS[library](tmp_path, 'train', 0)
    failing, skipping = guard(copy.deepcopy(cfg)), guard(cfg, unreadable='skip')
    broken = images(library, tmp_path, 'train')[1]
    spoil(broken, how)
    check_fails(failing, broken)
    check_skips(skipping, broken)


def test_ignore_empty_of_the_loader_skips(library, tmp_path):
    """MMCV's own ``ignore_empty`` does not cover files for which OpenCV returns no image without an error."""
    cfg = MAKERS[library](tmp_path, 'train', 0)
    cfg['pipeline'][0]['ignore_empty'] = True
    broken = images(library, tmp_path, 'train')[1]
    spoil(broken, 'garbage')
    check_skips(guard(copy.deepcopy(cfg)), broken)
    check_fails(guard(cfg, unreadable='fail'), broken)


@pytest.mark.parametrize('split', ['val', 'test'])
def test_evaluation_does_not_skip(split, library, tmp_path):
    """Without ``test_mode`` MMEngine would evaluate another image instead."""
    cfg = MAKERS[library](tmp_path, 'val', 0)
    cfg['pipeline'][0]['ignore_empty'] = True
    cfg['test_mode'] = False
    broken = images(library, tmp_path, 'val')[1]
    spoil(broken, 'garbage')
    dataset = guard(cfg, split=split)
    with pytest.raises(DataError, match=f'{broken}.*does not skip'):
        dataset[index_of(dataset, broken)]
    with pytest.raises(ValueError, match='for training only'):
        guard(cfg, split=split, unreadable='skip')


def test_unreadable_segmentation_map(tmp_path):
    with DefaultScope.overwrite_default_scope('mmseg'):
        cfg = MAKERS['mmseg'](tmp_path, 'train', 0)
        broken = tmp_path / 'maps' / 'train' / '2.png'
        spoil(broken, 'truncated')
        with pytest.raises(DataError, match=f'{broken}: .*truncated'):
            guard(copy.deepcopy(cfg))[2]
        dataset = guard(cfg, unreadable='skip')
        assert path_of(dataset[2]) != str(tmp_path / 'images' / 'train' / '2.jpg')
        assert list(skipped_files(dataset)) == [str(broken)]


def loader(cfg: dict, workers: int, seed: int = 0):
    guarded = dict(type='mmstvit.GuardedDataset', dataset=cfg, unreadable='skip')
    return Runner.build_dataloader(
        dict(
            batch_size=2,
            num_workers=workers,
            sampler=dict(type='mmstvit.SeededSampler', sampler=dict(type='DefaultSampler', shuffle=True)),
            dataset=dict(type='mmstvit.SeededDataset', dataset=guarded),
            collate_fn=dict(type='pseudo_collate'),
        ),
        seed=seed,
    )


def epoch(data, number: int) -> list[tuple]:
    data.sampler.set_epoch(number)
    return [
        (sample.img_path, pixels.sum().item(), pixels[0, 0, 0].item())
        for batch in data
        for sample, pixels in zip(batch['data_samples'], batch['inputs'], strict=True)
    ]


def test_replacement_depends_on_the_seed_only(mmpretrain, tmp_path):
    """Not on workers or earlier epochs; the count is that of all workers."""
    wrapped = dict(type='RepeatDataset', times=3, dataset=MAKERS[mmpretrain](tmp_path, 'train', 0))
    broken = images(mmpretrain, tmp_path, 'train')[0]
    spoil(broken, 'truncated')
    alone = loader(wrapped, workers=0)
    epochs = [epoch(alone, number) for number in range(2)]
    assert len(epochs[0]) == 3 * COUNT and str(broken) not in [path for path, *_ in epochs[0] + epochs[1]]
    parallel = loader(wrapped, workers=2)
    assert epoch(parallel, 1) == epochs[1]  # resumed after an epoch
    assert epoch(parallel, 0) == epochs[0]
    assert skipped_files(parallel.dataset) == skipped_files(alone.dataset)
    assert skipped_files(alone.dataset)[str(broken)][1] >= 6
    assert epoch(loader(wrapped, workers=0, seed=1), 0) != epochs[0]


def test_skipped_files_are_logged_once_and_errors_of_transforms_not_skipped(mmpretrain, tmp_path, monkeypatch):
    logged = []
    monkeypatch.setattr('mmstvit.datasets.guarded.print_log', lambda text, level, **_: logged.append((level, text)))
    cfg = MAKERS[mmpretrain](tmp_path, 'train', 0)
    dataset = guard(copy.deepcopy(cfg), unreadable='skip')
    broken, other, *_ = images(mmpretrain, tmp_path, 'train')
    spoil(broken, 'empty')
    for _ in range(5):
        dataset[0]
    ((level, text),) = logged
    assert level == logging.ERROR and str(broken) in text and '0 bytes' in text
    cfg['pipeline'].insert(1, fail)
    dataset = guard(cfg, unreadable='skip')
    with pytest.raises(ZeroDivisionError):
        dataset[index_of(dataset, other)]
    assert str(other) in logged[1][1] and not skipped_files(dataset)


def fail(results: dict) -> dict:
    raise ZeroDivisionError


def test_pipeline_that_a_hook_replaces_is_guarded(library, tmp_path):
    data = loader(MAKERS[library](tmp_path, 'train', 0), workers=0)
    transforms = data.dataset.pipeline.transforms
    data.dataset.pipeline = Compose([*transforms[:1], *transforms[-1:]])
    broken = images(library, tmp_path, 'train')[0]
    spoil(broken, 'garbage')
    assert len(epoch(data, 0)) == COUNT
    assert list(skipped_files(data.dataset)) == [str(broken)]


class LoadFromArchive(LoadImageFromFile):
    """A loader for which ``img_path`` is the name of a file in an archive."""

    def __init__(self, archive: Path) -> None:
        super().__init__()
        self.archive = archive

    def transform(self, results: dict) -> dict:
        with zipfile.ZipFile(self.archive) as archive:
            results['img'] = mmcv.imfrombytes(archive.read(Path(results['img_path']).name))
        return results


def test_keys_of_an_archive_are_no_missing_files(mmpretrain, tmp_path):
    cfg = MAKERS[mmpretrain](tmp_path, 'train', 0)
    with zipfile.ZipFile(tmp_path / 'images.zip', 'w') as archive:
        for path in images(mmpretrain, tmp_path, 'train'):
            archive.write(path, path.name)
    cfg['pipeline'][0] = LoadFromArchive(tmp_path / 'images.zip')
    cfg['max_refetch'] = 1
    failing, dropping = copy.deepcopy(cfg), copy.deepcopy(cfg)
    failing['pipeline'].insert(1, fail)
    dropping['pipeline'].insert(1, lambda results: None)
    guarded, failing, dropping = guard(cfg), guard(failing), guard(dropping)
    for path in images(mmpretrain, tmp_path, 'train'):
        path.unlink()
    assert guarded[0]['inputs'].shape == (3, 24, 32)
    with pytest.raises(ZeroDivisionError):
        failing[0]
    with pytest.raises(Exception, match='Cannot find valid image') as error:
        dropping[0]
    assert not isinstance(error.value, DataError)


def test_no_readable_image_is_an_error(mmpretrain, tmp_path):
    dataset = guard({**MAKERS[mmpretrain](tmp_path, 'train', 0), 'max_refetch': 9}, unreadable='skip')
    for path in images(mmpretrain, tmp_path, 'train'):
        spoil(path, 'empty')
    with pytest.raises(DataError, match='Too many files are unreadable'):
        dataset[0]


@pytest.mark.parametrize('options', [dict(split='all'), dict(unreadable='ignore')])
def test_invalid_option(options):
    (name, value) = next(iter(options.items()))
    with pytest.raises(ValueError, match=f'{name} must be .* but got {value!r}'):
        GuardedDataset(dict(type='CustomDataset'), **options)


@pytest.mark.parametrize('split', ['train', 'val'])
@pytest.mark.parametrize(('values', 'words'), [(7, 'the labels 7'), (300, 'the labels 300'), (None, '3 channels')])
def test_map_with_unknown_labels_names_file_and_labels(split, values, words, tmp_path):
    cfg = MAKERS['mmseg'](tmp_path, split, 0)
    path = tmp_path / 'maps' / split / '1.png'
    write(path, draw(0) if values is None else np.full((24, 32), values, np.uint16))
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = guard(cfg, split=split)
        assert dataset[0]['data_samples'].gt_sem_seg.shape == (24, 32)
        with pytest.raises(DataError, match=f'{path} has {words}') as error:
            dataset[1]
    assert 'reduce_zero_label' in error.value.remedy and (values is None or '0 to 1 (2 classes)' in str(error.value))


def test_map_with_the_label_that_the_model_ignores(tmp_path):
    cfg = MAKERS['mmseg'](tmp_path, 'train', 0)
    write(tmp_path / 'maps' / 'train' / '1.png', np.full((24, 32), 2, np.uint8))
    with DefaultScope.overwrite_default_scope('mmseg'):
        assert guard(cfg, ignore_index=2)[1]['data_samples'].gt_sem_seg.data.max() == 2
