"""Findings of every kind, planted in a small data set and found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset

from mmstvit.rules import Finding, Report, check

from ..test_datasets.tiny_data import (
    CLASSES,
    COUNT,
    LIBRARIES,
    coco_content,
    draw,
    images,
    make_config,
    write,
)


def run(cfg: Config, *splits: str) -> Report:
    return check(cfg, splits or ('train', 'val'), complete=True)


def kinds(findings: list[Finding]) -> list[str]:
    return sorted({finding.kind for finding in findings})


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_unreadable_images_and_maps(tmp_path):
    cfg = make_config('mmseg', tmp_path)
    truncate(images('mmseg', tmp_path, 'train')[2])
    truncate(tmp_path / 'maps' / 'val' / '3.png')
    faults = run(cfg).faults
    assert [(fault.kind, fault.split) for fault in faults] == [('unreadable file', split) for split in ('train', 'val')]
    assert all('truncated' in fault.message for fault in faults)


def test_missing_images_and_maps(tmp_path):
    """The dataset of label maps lists the images of the folder, so that none is missing."""
    cfg = make_config('mmseg', tmp_path)
    images('mmseg', tmp_path, 'train')[2].unlink()
    (missing := tmp_path / 'maps' / 'val' / '3.png').unlink()
    (fault,) = run(cfg).faults
    assert fault.kind == 'missing files' and str(missing) in fault.message
    cfg = make_config('mmpretrain', tmp_path / 'list')
    (tmp_path / 'list' / 'train.txt').write_text(''.join(f'{CLASSES[i % 2]}/{i}.jpg {i % 2}\n' for i in range(COUNT)))
    cfg.train_dataloader.dataset.ann_file = 'train.txt'
    (missing := images('mmpretrain', tmp_path / 'list', 'train')[2]).unlink()
    report = run(cfg)
    (warning,) = report.warnings  # training goes on until it comes to the image
    assert warning.kind == 'missing files' and str(missing) in warning.message and not report.faults
    missing.symlink_to('/dev/zero')
    (warning,) = run(cfg).warnings
    assert f'{missing} is not a file' in warning.message


# COCO annotations.


def first(content: dict) -> dict:
    """Return the first annotation with polygons, of the second image."""
    return content['annotations'][1]


def change_first(**fields: object) -> Callable[[dict], object]:
    return lambda content: first(content).update(fields)


@pytest.fixture(scope='module')
def coco_data(tmp_path_factory):
    """A COCO data set and its config; tests change the training annotations only."""
    folder = tmp_path_factory.mktemp('coco')
    return folder, make_config('mmdet', folder)


def run_coco(coco_data, change: Callable[[dict], object]) -> Report:
    """Verify the training split with other annotations."""
    folder, cfg = coco_data
    content = coco_content()
    change(content)
    (folder / 'train.json').write_text(json.dumps(content))
    return run(cfg, 'train')


@pytest.mark.parametrize('mask', [[[4, 5, 50, 5, 50, 11]], [[4, 5, 4, 5, 4, 5]], dict(size=[24, 32], counts=[768])])
def test_masks_with_which_training_goes_on_are_warnings(coco_data, mask):
    report = run_coco(coco_data, change_first(segmentation=mask))
    assert not report.faults
    (warning,) = [warning for warning in report.warnings if warning.kind == 'empty mask or outside image']
    assert '1 of 4' in warning.line and '1.jpg' in warning.line


@pytest.mark.parametrize(
    'change', [change_first(bbox=[1, 2, 3, 0]), change_first(bbox=[1, 2, 0.5, 3]), change_first(area=0)]
)
def test_objects_that_mmdetection_drops_are_warnings(coco_data, change):
    report = run_coco(coco_data, change)
    assert not report.faults
    assert '3 of 4 annotations in 4 of 4 images (dropped: 1 ' in report.used[0]
    assert any('1.jpg' in w.line or 'annotation 2' in w.line for w in report.warnings), report.warnings


def test_warnings_of_coco_annotations(coco_data):
    def change(content: dict) -> None:
        content['categories'][1]['name'] = 'something'
        del content['annotations'][0]

    report = run_coco(coco_data, change)
    assert kinds(report.faults) == []
    assert kinds(report.warnings) == ['categories and classes differ', 'no annotation', 'unused category']
    assert '1 of 3 annotations in 1 of 4 images' in report.used[0]


# Labels and lists of files.


@pytest.mark.parametrize('label', [2, -1])
def test_image_labels_out_of_range(label, tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    (tmp_path / 'train.txt').write_text(f'a/0.jpg 0\nb/1.jpg 1\na/2.jpg {label}\na/0.jpg 0\n')
    cfg.train_dataloader.dataset.ann_file = 'train.txt'
    report = run(cfg)
    assert kinds(report.faults) == ['label out of range'] and '2.jpg' in report.faults[0].line
    assert kinds(report.warnings) == ['duplicate image', 'unused file']  # 0.jpg, 3.jpg


def test_class_without_images_is_a_warning(tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    shutil.rmtree(tmp_path / 'val' / 'b')
    (tmp_path / 'val' / 'b').mkdir()
    report = run(cfg)
    assert (kinds(report.faults), kinds(report.warnings)) == ([], ['class without samples'])


def test_data_that_cannot_be_verified(tmp_path):
    """Samples without files of their own; a dataset that does not inherit from MMEngine's."""
    cfg = make_config('mmpretrain', tmp_path)
    (tmp_path / 'pairs.json').write_text(json.dumps(dict(metainfo={}, data_list=[dict(pair=['a.jpg', 'b.jpg'])])))
    cfg.train_dataloader.dataset = ConfigDict(
        type=BaseDataset, ann_file='pairs.json', data_root=str(tmp_path), data_prefix={}
    )
    report = run(cfg, 'train')
    assert [str(fault) for fault in report.faults] == []
    assert kinds(report.warnings) == ['not verified']
    cfg.train_dataloader.dataset = ConfigDict(type=Pairs)
    report = run(cfg, 'train')
    assert kinds(report.faults) == [] and kinds(report.warnings) == ['not verified']
    assert 'mmengine.dataset.BaseDataset' in report.warnings[0].message


class Pairs(list):
    """A dataset for PyTorch, but not for MMEngine."""

    def __init__(self) -> None:
        super().__init__([1, 2])


# Duplicate content, and unused files.


@pytest.mark.parametrize('library', LIBRARIES)
def test_duplicate_image_is_a_warning_that_says_if_the_labels_differ(library, tmp_path):
    cfg = make_config(library, tmp_path)
    (source, inside, *_), between = images(library, tmp_path, 'train'), images(library, tmp_path, 'val')[2]
    shutil.copyfile(source, inside)
    shutil.copyfile(source, between)
    report = run(cfg)
    assert not report.faults
    same, leak = report.warnings
    differ = '' if library == 'mmpretrain' else ', with other labels'
    assert same.kind == 'same content' and same.values == (f'{inside}: the same image as {source}{differ}',)
    assert leak.kind == 'train images in another split' and str(between) in leak.message
    assert '1 of 4' in leak.message


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_unused_file_is_a_warning(library, tmp_path):
    cfg = make_config(library, tmp_path)
    extra = images(library, tmp_path, 'train')[0].with_suffix('.png' if library == 'mmseg' else '.JPG')
    write(extra, draw(50))
    (warning,) = run(cfg).warnings
    assert (warning.kind, warning.values) == ('unused file', (str(extra),))
    # The images of other splits may be in the same folder, unless a dataset reads all of them.
    assert len(run(cfg, 'train').findings) == (library == 'mmseg')


def test_pictures_in_other_folders_are_not_unused(tmp_path):
    """The folder of the images may be the root of everything, and names may lead out of it."""
    cfg = make_config('mmdet', tmp_path)
    write(tmp_path / 'plots' / 'loss.png', draw(50))
    for split in ('train', 'val'):
        content = coco_content()
        for image in content['images']:
            image['file_name'] = f'../{tmp_path.name}/{split}/{image["file_name"]}'
        (tmp_path / f'{split}.json').write_text(json.dumps(content))
        cfg[f'{split}_dataloader'].dataset.data_prefix = dict(img='')
    assert run(cfg).findings == []


# Dataset wrappers, processes, the report.


@pytest.mark.parametrize('library', LIBRARIES)
def test_inner_datasets_are_verified_once(library, tmp_path):
    cfg = make_config(library, tmp_path)
    train, val = (cfg[f'{split}_dataloader'].dataset for split in ('train', 'val'))
    repeated = ConfigDict(type='RepeatDataset', times=3, dataset=train)
    both = ConfigDict(type='ConcatDataset', datasets=[repeated, val, repeated])
    guarded = ConfigDict(type='mmstvit.GuardedDataset', dataset=both)
    cfg.train_dataloader.dataset = ConfigDict(type='mmstvit.SeededDataset', dataset=guarded)
    images(library, tmp_path, 'val')[0].write_bytes(b'')
    report = run(cfg)
    inner = 'train_dataloader.dataset.dataset.dataset.datasets'
    assert [line for line in report.used if 'same data' in line] == [
        f'train: {inner}.2.dataset has the same data as {inner}.0.dataset',
        f'val: val_dataloader.dataset has the same data as {inner}.1',
    ]
    assert len(report.used) == 4
    (fault,) = report.faults
    assert (fault.kind, fault.count) == ('unreadable file', 1)


def test_parallel_processes_give_the_same_report(tmp_path):
    cfg = make_config('mmseg', tmp_path)
    for path in images('mmseg', tmp_path, 'train')[1:3]:
        path.write_bytes(b'')
    alone = run(cfg).to_dict()
    assert alone['findings'][0]['count'] == 2
    assert check(cfg, ('train', 'val'), complete=True, num_workers=2).to_dict() == alone


def test_report_is_grouped_and_short(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    for path in images('mmdet', tmp_path, 'train'):
        path.write_bytes(b'')
    lines = list(run(cfg).lines(shown=2))
    start = lines.index('  FAULT  unreadable file (train): 4')
    assert 'an image or map cannot be read' in lines[start + 1] and lines[start + 1].endswith(' (all 4)')
    assert lines[start + 2] == f'      {tmp_path}/train/0.jpg: the file is empty (0 bytes)'
    assert lines[start + 4] == '      … and 2 more'
    assert lines[start + 5].startswith('    Remedy: ')
    assert lines[-1].startswith('1 fault')
