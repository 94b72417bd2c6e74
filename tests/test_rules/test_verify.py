"""Findings of every kind, planted in a small data set and found."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset
from pycocotools import mask as rle

from mmstvit.rules import Finding, Report, check
from mmstvit.rules.coco_values import mask_area, run_lengths

from ..test_datasets.tiny_data import (
    CLASSES,
    COUNT,
    HEIGHT,
    LIBRARIES,
    WIDTH,
    coco_content,
    draw,
    images,
    make_config,
    write,
)
from .coco_defects import one_of_each_kind


def run(cfg: Config, *splits: str) -> Report:
    return check(cfg, splits or ('train', 'val'), complete=True)


def kinds(findings: list[Finding]) -> list[str]:
    return sorted({finding.kind for finding in findings})


# Files.

FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    'missing': (Path.unlink, 'does not exist'),
    'truncated': (lambda path: path.write_bytes(path.read_bytes()[:-40]), 'truncated'),
}


@pytest.mark.parametrize('name', FILES)
def test_unreadable_images_and_maps(name, tmp_path):
    cfg = make_config('mmseg', tmp_path)
    plant, reason = FILES[name]
    plant(images('mmseg', tmp_path, 'train')[2])
    plant(tmp_path / 'maps' / 'val' / '3.png')
    faults = run(cfg).faults
    # The dataset lists the images of the folder, so that none is missing.
    if name == 'missing':
        assert kinds(faults) == ['missing files'] and str(tmp_path / 'maps' / 'val' / '3.png') in faults[0].message
    else:
        assert kinds(faults) == ['unreadable image', 'unreadable segmentation map']
        assert all(reason in fault.message for fault in faults)


def test_missing_image_of_a_list(tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    (tmp_path / 'train.txt').write_text(''.join(f'{CLASSES[i % 2]}/{i}.jpg {i % 2}\n' for i in range(COUNT)))
    cfg.train_dataloader.dataset.ann_file = 'train.txt'
    missing = images('mmpretrain', tmp_path, 'train')[2]
    missing.unlink()
    report = run(cfg)
    (warning,) = report.warnings  # training goes on until it comes to the image
    assert warning.kind == 'missing files' and str(missing) in warning.message and not report.faults


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


@pytest.mark.parametrize('defect', one_of_each_kind(), ids=lambda defect: defect.kind)
def test_defects_of_annotation_files_are_found(defect, tmp_path):
    """In the file for validation, for which every one matters; the dataset's own filtering hides most of them."""
    cfg = make_config('mmdet', tmp_path)
    content = coco_content()
    defect.plant(content)
    path = tmp_path / 'val.json'
    path.write_text(json.dumps(content))
    found = {(finding.severity, finding.where) for finding in run(cfg, 'val').findings if finding.kind == defect.kind}
    assert found == {(defect.severity, str(path))}


@pytest.mark.parametrize(
    ('mask', 'kind', 'words'),
    [
        ([[4, 5, 50, 5, 50, 11]], 'masks outside images', '1.jpg'),
        ([[4, 5, 4, 5, 4, 5]], 'empty mask', '1 of 4'),
        (dict(size=[24, 32], counts=[768]), 'empty mask', '1 of 4'),
    ],
)
def test_masks_with_which_training_goes_on_are_warnings(coco_data, mask, kind, words):
    report = run_coco(coco_data, change_first(segmentation=mask))
    assert not report.faults
    assert words in ' '.join(warning.line for warning in report.warnings if warning.kind == kind)


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
    assert kinds(report.warnings) == ['class without category', 'no annotation', 'unused category']
    assert '1 of 3 annotations in 1 of 4 images' in report.used[0]


def test_compressed_masks_are_decoded_as_pycocotools_encodes_them():
    for seed in range(20):
        mask = np.asfortranarray(cv2.resize(draw(seed, 6, 8), (WIDTH * 9, HEIGHT * 9)) // 128)
        code = rle.encode(mask)
        counts = run_lengths(code)
        assert sum(counts) == mask.size and sum(counts[1::2]) == mask.sum() == rle.area(code)
        assert mask_area(code) == rle.area(code)


# Labels and lists of files.


@pytest.mark.parametrize('label', [2, -1])
def test_image_labels_out_of_range(label, tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    (tmp_path / 'train.txt').write_text(f'a/0.jpg 0\nb/1.jpg 1\na/2.jpg {label}\na/0.jpg 0\n')
    cfg.train_dataloader.dataset.ann_file = 'train.txt'
    report = run(cfg)
    assert kinds(report.faults) == ['label out of range'] and '2.jpg' in report.faults[0].line
    assert kinds(report.warnings) == ['duplicate file', 'unused file']  # 0.jpg, 3.jpg


def test_class_without_images_is_a_warning(tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    shutil.rmtree(tmp_path / 'val' / 'b')
    (tmp_path / 'val' / 'b').mkdir()
    report = run(cfg)
    assert (kinds(report.faults), kinds(report.warnings)) == ([], ['class without samples'])


@pytest.mark.parametrize('library', LIBRARIES)
def test_empty_data_set(library, tmp_path):
    cfg = make_config(library, tmp_path)
    for path in images(library, tmp_path, 'train'):
        path.unlink()
    report = run(cfg)
    if library == 'mmdet':
        (fault,) = report.faults
        assert (fault.kind, fault.count, fault.total) == ('missing files', COUNT, COUNT)
    else:
        assert kinds(report.faults) == ['unusable dataset']


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
def test_duplicate_image_is_a_warning(library, tmp_path):
    cfg = make_config(library, tmp_path)
    (source, inside, *_), between = images(library, tmp_path, 'train'), images(library, tmp_path, 'val')[2]
    shutil.copyfile(source, inside)
    shutil.copyfile(source, between)
    report = run(cfg)
    assert not report.faults
    same, leak = report.warnings
    assert same.kind == 'same content' and same.values == (f'{inside}: the same image as {source}',)
    assert leak.kind == 'train images in another split' and str(between) in leak.message
    assert '1 of 4' in leak.message


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_unused_file_is_a_warning(library, tmp_path):
    cfg = make_config(library, tmp_path)
    extra = images(library, tmp_path, 'train')[0].with_suffix('.png' if library == 'mmseg' else '.JPG')
    write(extra, draw(50))
    (warning,) = run(cfg).warnings
    assert (warning.kind, warning.values) == ('unused file', (str(extra),))
    assert run(cfg, 'train').findings == []  # the images of other splits may be in the same folder


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
    assert (fault.kind, fault.count) == ('unreadable image', 1)


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
    start = lines.index('  FAULT  unreadable image (train): 4')
    assert 'an image cannot be read' in lines[start + 1] and lines[start + 1].endswith(' (all 4)')
    assert lines[start + 2] == f'      {tmp_path}/train/0.jpg: the file is empty (0 bytes)'
    assert lines[start + 4] == '      … and 2 more'
    assert lines[start + 5].startswith('    Remedy: ')
    assert lines[-1].startswith('1 fault')
