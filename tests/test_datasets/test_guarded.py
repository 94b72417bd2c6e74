"""Faults of the data in training and evaluation: named, then fatal or skipped and counted."""

import copy
import json
import logging
from pathlib import Path

import pytest
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, DefaultScope
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmstvit.datasets import GuardedDataset, skipped_files
from mmstvit.errors import DataError

from .tiny_data import COUNT, LIBRARIES, MAKERS, coco_content, draw, images, write

BROKEN = {
    'garbage': b'no image at all',
    'empty': b'',
    'missing': None,
    'cut short': 0.5,
}


def spoil(path: Path, how: str) -> None:
    content = BROKEN[how]
    if content is None:
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(content * len(whole))] if isinstance(content, float) else content)


@pytest.fixture(params=LIBRARIES)
def library(request):
    """Each of the libraries, as the default scope."""
    with DefaultScope.overwrite_default_scope(request.param):
        yield request.param


def guard(cfg: dict, **options: object) -> GuardedDataset:
    return DATASETS.build(dict(type='mmstvit.GuardedDataset', dataset=cfg, **options))


def index_of(dataset: Dataset, path: Path) -> int:
    return next(i for i in range(len(dataset)) if dataset.get_data_info(i)['img_path'] == str(path))


@pytest.mark.parametrize('how', BROKEN)
def test_an_unreadable_image_is_fatal_and_named(library, how, tmp_path):
    dataset = guard(MAKERS[library](tmp_path, 'train', 0))
    broken = images(library, tmp_path, 'train')[1]
    spoil(broken, how)
    with pytest.raises(DataError, match=rf'cannot read {broken}: .*verify_dataset.py.*unreadable=skip'):
        dataset[index_of(dataset, broken)]
    for i in range(COUNT):
        if i != index_of(dataset, broken):
            assert dataset[i] is not None


@pytest.mark.parametrize('how', BROKEN)
def test_skipped_it_is_replaced_and_counted(library, how, tmp_path):
    dataset = guard(MAKERS[library](tmp_path, 'train', 0), unreadable='skip')
    broken = images(library, tmp_path, 'train')[1]
    spoil(broken, how)
    for _ in range(2):
        assert path_of(dataset[index_of(dataset, broken)]) != str(broken)
    ((path, (reason, count)),) = skipped_files(dataset).items()
    assert path == str(broken) and reason and count >= 2


def path_of(sample: dict) -> str:
    return sample['data_samples'].img_path


def test_the_loaders_own_option_skips_too(library, tmp_path):
    """MMCV's ``ignore_empty`` alone does not, where OpenCV returns no image instead of raising an error."""
    cfg = MAKERS[library](tmp_path, 'train', 0)
    cfg['pipeline'][0]['ignore_empty'] = True
    broken = images(library, tmp_path, 'train')[1]
    spoil(broken, 'garbage')
    dataset = guard(copy.deepcopy(cfg))
    assert path_of(dataset[index_of(dataset, broken)]) != str(broken)
    dataset = guard(copy.deepcopy(cfg), unreadable='fail')
    with pytest.raises(DataError, match=str(broken)):
        dataset[index_of(dataset, broken)]


@pytest.mark.parametrize('split', ['val', 'test'])
def test_evaluation_never_skips(library, split, tmp_path):
    """Not even where the pipeline says so: without ``test_mode``, MMEngine would evaluate another image instead."""
    cfg = MAKERS[library](tmp_path, 'val', 0)
    cfg['pipeline'][0]['ignore_empty'] = True
    cfg['test_mode'] = False
    broken = images(library, tmp_path, 'val')[1]
    spoil(broken, 'garbage')
    dataset = guard(cfg, split=split)
    with pytest.raises(DataError, match=rf'{broken}.*not skipped'):
        dataset[index_of(dataset, broken)]
    with pytest.raises(ValueError, match='is for training'):
        guard(cfg, split=split, unreadable='skip')


@pytest.mark.parametrize('unreadable', ['fail', 'skip'])
def test_segmentation_maps_as_well(unreadable, tmp_path):
    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = guard(MAKERS['mmseg'](tmp_path, 'train', 0), unreadable=unreadable)
        broken = tmp_path / 'maps' / 'train' / '2.png'
        spoil(broken, 'cut short')
        if unreadable == 'fail':
            with pytest.raises(DataError, match=f'{broken}: it is cut short'):
                dataset[2]
        else:
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


def test_what_takes_its_place_depends_on_the_seed_alone(library, tmp_path):
    """Workers, and the epochs before, change nothing; the count comes from all of them."""
    wrapped = dict(type='RepeatDataset', times=3, dataset=MAKERS[library](tmp_path, 'train', 0))
    broken = images(library, tmp_path, 'train')[0]
    spoil(broken, 'cut short')
    alone = loader(wrapped, workers=0)
    epochs = [epoch(alone, number) for number in range(2)]
    assert len(epochs[0]) == 3 * COUNT and str(broken) not in [path for path, *_ in epochs[0] + epochs[1]]
    parallel = loader(wrapped, workers=2)
    assert epoch(parallel, 1) == epochs[1]  # resumed after an epoch
    assert epoch(parallel, 0) == epochs[0]
    assert skipped_files(parallel.dataset) == skipped_files(alone.dataset)
    assert skipped_files(alone.dataset)[str(broken)][1] >= 6
    assert epoch(loader(wrapped, workers=0, seed=1), 0) != epochs[0]


def test_a_worker_hands_on_the_message_alone(tmp_path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        data = loader(MAKERS['mmpretrain'](tmp_path, 'train', 0), workers=1)
    data.dataset.pipeline.skips = None  # as unreadable='fail' has it
    broken = images('mmpretrain', tmp_path, 'train')[0]
    spoil(broken, 'garbage')
    batches = iter(data)
    with pytest.raises(DataError) as error:
        list(batches)
    del batches
    assert str(error.value).startswith(f'cannot read {broken}: ') and '\n' not in str(error.value)


def test_it_is_told_once(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('mmstvit.datasets.pipeline.print_log', lambda text, level, **_: told.append((level, text)))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = guard(MAKERS['mmpretrain'](tmp_path, 'train', 0), unreadable='skip')
        broken = images('mmpretrain', tmp_path, 'train')[0]
        spoil(broken, 'empty')
        for _ in range(5):
            dataset[0]
    ((level, text),) = told
    assert level == logging.ERROR and f'Cannot read {broken}: it is empty' in text


def test_other_errors_stay_what_they_are(library, tmp_path, monkeypatch):
    """A transform that fails is no fault of the file, and no reason to skip; the log names the sample."""
    told = []
    monkeypatch.setattr('mmstvit.datasets.pipeline.print_log', lambda text, **_: told.append(text))
    cfg = MAKERS[library](tmp_path, 'train', 0)
    cfg['pipeline'].insert(1, fail)
    dataset = guard(cfg, unreadable='skip')
    with pytest.raises(ZeroDivisionError):
        dataset[0]
    assert str(images(library, tmp_path, 'train')[0]) in told[0]
    assert not skipped_files(dataset)


def fail(results: dict) -> dict:
    raise ZeroDivisionError


def test_a_hook_may_exchange_the_pipeline(library, tmp_path):
    cfg = MAKERS[library](tmp_path, 'train', 0)
    data = loader(copy.deepcopy(cfg), workers=0)
    with_loading = data.dataset.pipeline.transforms
    data.dataset.pipeline = Compose([*with_loading[:1], *with_loading[-1:]])
    broken = images(library, tmp_path, 'train')[0]
    spoil(broken, 'garbage')
    assert len(epoch(data, 0)) == COUNT
    assert list(skipped_files(data.dataset)) == [str(broken)]


def test_everything_unreadable_is_fatal(tmp_path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = guard({**MAKERS['mmpretrain'](tmp_path, 'train', 0), 'max_refetch': 9}, unreadable='skip')
        for path in images('mmpretrain', tmp_path, 'train'):
            spoil(path, 'empty')
        with pytest.raises(DataError, match=r'so many files cannot be read .* Mend the file'):
            dataset[0]


def test_a_pipeline_that_gives_nothing_of_what_it_read_is_no_fault_of_the_files(tmp_path):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = guard({**MAKERS['mmpretrain'](tmp_path, 'train', 0), 'max_refetch': 9}, unreadable='skip')
        dataset.pipeline = Compose([*dataset.pipeline.transforms, lambda data: None])
        with pytest.raises(Exception, match='Cannot find valid image after 9'):
            dataset[0]


@pytest.mark.parametrize('options', [dict(split='all'), dict(unreadable='ignore')])
def test_bad_options_are_refused(options, tmp_path):
    (name, value) = next(iter(options.items()))
    with pytest.raises(ValueError, match=f'{name} must be .* but got {value!r}'):
        GuardedDataset(dict(type='CustomDataset'), **options)


# Nothing to learn from.


def change_coco(content: dict, what: str) -> None:
    annotations = content['annotations']
    if what == 'none':
        annotations.clear()
    for i, category in enumerate(content['categories']):
        if what == 'names':
            category['name'] = f'other {i}'
    for annotation in annotations:
        if what == 'crowd':
            annotation['iscrowd'] = 1
        elif what == 'boxes':
            annotation['bbox'][2] = 0
        elif what == 'masks':
            annotation['segmentation'] = [[1, 2, 3, 4]]
        elif what == 'ignore':
            annotation['ignore'] = 1


@pytest.mark.parametrize('filtering', [True, False])
@pytest.mark.parametrize(
    ('what', 'reason'),
    [
        ('none', 'train.json has 4 images and no annotation'),
        ('names', r"not one category of .*train.json \('other 0', 'other 1'\) is in metainfo.classes \('a', 'b'\)"),
        ('crowd', '4 crowd'),
        ('boxes', '4 with an empty box'),
        ('masks', '4 with .*a mask that is none'),
        ('ignore', '4 to be ignored'),
    ],
)
def test_no_usable_object_is_an_error_before_training(what, reason, filtering, tmp_path):
    cfg = MAKERS['mmdet'](tmp_path, 'train', 0)
    cfg['filter_cfg'] = dict(filter_empty_gt=filtering)
    cfg['serialize_data'] = what == 'none'  # then MMEngine fails on an empty list
    content = coco_content()
    change_coco(content, what)
    (tmp_path / 'train.json').write_text(json.dumps(content))
    with DefaultScope.overwrite_default_scope('mmdet'), pytest.raises(DataError, match=reason) as error:
        guard(cfg)
    assert str(error.value).startswith('train_dataloader.dataset')


def test_one_usable_object_is_enough(tmp_path):
    cfg = MAKERS['mmdet'](tmp_path, 'train', 0)
    content = coco_content()
    last = copy.deepcopy(content['annotations'][-1])
    change_coco(content, 'crowd')
    content['annotations'][-1] = last
    (tmp_path / 'train.json').write_text(json.dumps(content))
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert len(guard(cfg)) == COUNT


@pytest.mark.parametrize('serialize', [True, False])
def test_empty_folders_are_an_error(library, serialize, tmp_path):
    cfg = {**MAKERS[library](tmp_path, 'train', 0), 'serialize_data': serialize}
    for path in images(library, tmp_path, 'train'):
        path.unlink()
    if library == 'mmdet':  # it has the images from the annotation file
        (tmp_path / 'train.json').write_text(json.dumps({**coco_content(), 'images': [], 'annotations': []}))
    with pytest.raises(DataError) as error:
        guard(dict(type='RepeatDataset', times=2, dataset=cfg))
    reasons = {'mmdet': 'has 0 images', 'mmseg': 'images/train has no image', 'mmpretrain': 'Found 0 files'}
    assert 'train_dataloader.dataset' in str(error.value) and reasons[library] in str(error.value)


def test_an_empty_list_of_files_is_an_error(tmp_path):
    (tmp_path / 'list.txt').touch()
    with DefaultScope.overwrite_default_scope('mmpretrain'), pytest.raises(DataError, match=r'list.txt lists none'):
        guard({**MAKERS['mmpretrain'](tmp_path, 'train', 0), 'ann_file': 'list.txt', 'serialize_data': True})


@pytest.mark.parametrize(('value', 'reduce'), [(255, False), (0, True)])
def test_maps_without_a_label_are_an_error(value, reduce, tmp_path):
    cfg = {**MAKERS['mmseg'](tmp_path, 'train', 0), 'reduce_zero_label': reduce}
    for path in (tmp_path / 'maps' / 'train').iterdir():
        write(path, draw(0, 24, 32) * 0 + value)
    with DefaultScope.overwrite_default_scope('mmseg'):
        with pytest.raises(DataError, match='no pixel of its 4 segmentation maps has a label'):
            guard(cfg)
        assert len(guard(cfg, split='test')) == COUNT
        write(path, draw(0, 24, 32) % 2)
        assert len(guard(cfg)) == COUNT


def test_a_data_set_that_cannot_be_built_says_why(library, tmp_path):
    cfg = {**MAKERS[library](tmp_path, 'train', 0), 'max_refetc': 3}
    with pytest.raises(DataError, match=r'train_dataloader.dataset cannot be built: TypeError: .*max_refetc'):
        guard(cfg)
