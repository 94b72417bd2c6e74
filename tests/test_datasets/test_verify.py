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
from PIL import Image
from pycocotools import mask as rle

from mmstvit.datasets.verify import Finding, Report, verify
from mmstvit.datasets.verify.findings import FAULTS, WARNINGS
from mmstvit.datasets.verify.masks import check_mask, decode_counts

from ..helpers import ROOT
from .tiny_data import CLASSES, COUNT, HEIGHT, LIBRARIES, WIDTH, coco_content, draw, images, make_config, write


def run(cfg: Config, *splits: str) -> Report:
    return verify(cfg, splits or ('train', 'val'), num_workers=0)


def kinds(findings: list[Finding]) -> list[str]:
    return sorted({finding.kind for finding in findings})


@pytest.mark.parametrize('library', LIBRARIES)
def test_good_data_have_no_findings(library, tmp_path):
    report = run(make_config(library, tmp_path))
    assert [*report.lines(5)][-1] == '0 faults, 0 warnings'
    for split in ('train', 'val'):
        assert (report.splits[split].images, report.splits[split].annotations) == (COUNT, COUNT)


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
    assert kinds(faults) == ['unreadable image', 'unreadable segmentation map'][name == 'missing' :]
    assert all(reason in fault.message for fault in faults)


@pytest.mark.parametrize('library', ['mmdet', 'mmpretrain'])
def test_missing_image_of_a_list(library, tmp_path):
    cfg = make_config(library, tmp_path)
    if library == 'mmpretrain':
        lines = [f'{CLASSES[i % 2]}/{i}.jpg {i % 2}\n' for i in range(COUNT)]
        (tmp_path / 'train.txt').write_text(''.join(lines))
        cfg.train_dataloader.dataset.ann_file = 'train.txt'
    missing = images(library, tmp_path, 'train')[2]
    missing.unlink()
    (fault,) = run(cfg).faults
    assert (fault.kind, fault.path) == ('unreadable image', str(missing)) and 'does not exist' in fault.message


# COCO annotations.


def first(content: dict) -> dict:
    """Return the first annotation with polygons, of the second image."""
    return content['annotations'][1]


def change_first(**fields: object) -> Callable[[dict], object]:
    return lambda content: first(content).update(fields)


def drop(key: str, index: int = 1, within: str = 'annotations') -> Callable[[dict], object]:
    return lambda content: content[within][index].pop(key)


def encoded(height: int, width: int) -> dict:
    code = rle.encode(np.asfortranarray(np.ones((height, width), np.uint8)))
    return dict(size=code['size'], counts=code['counts'].decode())


COCO: dict[str, tuple[Callable[[dict], object], str, str]] = {
    'width': (lambda c: c['images'][1].update(width=40), 'wrong image size', 'the annotations have 40×24'),
    'turned': (lambda c: c['images'][1].update(width=24, height=32), 'wrong image size', 'EXIF'),
    'box without end': (change_first(bbox=[1, 2, 3, float('inf')]), 'invalid box', 'four finite numbers'),
    'no box': (drop('bbox'), 'invalid annotation', 'has no bbox'),
    'box too wide': (change_first(bbox=[4, 5, 40, 6]), 'box outside image', 'extends beyond the 32×24 image'),
    'area of words': (change_first(area='large'), 'invalid annotation', "'large'"),
    'no mask': (drop('segmentation'), 'no mask', 'with_mask=True'),
    'odd numbers': (change_first(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), 'invalid mask', '7 numbers'),
    'polygon outside': (change_first(segmentation=[[4, 5, 50, 5, 50, 11]]), 'mask outside image', '32×24'),
    'thin polygon': (change_first(segmentation=[[4, 5, 4, 5, 4, 5]]), 'empty mask', 'cover no pixel'),
    'mask of another size': (change_first(segmentation=encoded(9, 9)), 'invalid mask', '[9, 9]'),
    'short runs': (change_first(segmentation=dict(size=[24, 32], counts=[3, 4])), 'invalid mask', 'add up to 7'),
    'no runs': (change_first(segmentation=dict(size=[24, 32], counts='~~')), 'invalid mask', 'not run lengths'),
    'no one': (change_first(segmentation=dict(size=[24, 32], counts=[768])), 'empty mask', 'cover'),
    'mask of a kind': (change_first(segmentation='mask'), 'invalid mask', 'neither polygons nor RLE'),
    'category id': (change_first(category_id=7), 'unknown category', 'category_id 7'),
    'image id': (change_first(image_id=70), 'unknown image id', 'image_id 70'),
    'annotation id': (change_first(id=1), 'duplicate annotation id', 'annotation 1'),
    'image twice': (lambda c: c['images'][1].update(id=1), 'duplicate image id', '1.jpg and 0.jpg both have id 1'),
    'file twice': (lambda c: c['images'][1].update(file_name='0.jpg'), 'duplicate file', 'listed 2 times'),
    'image without a field': (drop('height', within='images'), 'invalid image entry', 'height'),
    'category without a name': (drop('name', within='categories'), 'invalid category', 'has no name'),
    'one category twice': (lambda c: c['categories'][1].update(id=1), 'duplicate category', 'id 1'),
    'order': (lambda c: c['categories'].reverse(), 'order of categories', "label 0 is 'b' in the file"),
    'other names': (
        lambda c: [category.update(name='x' + category['name']) for category in c['categories']],
        'no matching category',
        "'xa', 'xb'",
    ),
    'no annotation': (lambda c: c['annotations'].clear(), 'unusable dataset', 'no annotation'),
    'no list': (lambda c: c.pop('annotations'), 'invalid annotation file', 'no list annotations'),
}


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


@pytest.mark.parametrize('name', COCO)
def test_faults_of_coco_annotations(name, coco_data):
    """The dataset's own filtering drops most of them without a message."""
    change, kind, words = COCO[name]
    report = run_coco(coco_data, change)
    assert words in ' '.join(fault.message for fault in report.faults if fault.kind == kind), report.to_dict()


def test_annotation_file_that_is_not_json(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    path = tmp_path / 'train.json'
    path.write_text(path.read_text()[:-100])
    assert kinds(run(cfg).faults) == ['invalid annotation file', 'unusable dataset']


@pytest.mark.parametrize(
    'change',
    [change_first(bbox=[1, 2, 3, 0]), change_first(bbox=[1, 2, 0.5, 3]), change_first(area=0, segmentation=[[1, 2]])],
)
def test_objects_that_mmdetection_drops_are_warnings(coco_data, change):
    """Also if their masks would be faults."""
    report = run_coco(coco_data, change)
    (warning,) = report.warnings
    assert not report.faults
    assert (warning.kind, Path(warning.path).name) == ('empty box', '1.jpg') and 'annotation 2' in warning.message


def test_warnings_of_coco_annotations(coco_data):
    def change(content: dict) -> None:
        content['categories'][1]['name'] = 'other'
        del content['annotations'][0]

    report = run_coco(coco_data, change)
    assert kinds(report.faults) == []
    assert kinds(report.warnings) == ['class without category', 'no annotation', 'unused category']
    assert 'after its own filtering 1 images' in report.splits['train'].datasets[0]


def test_compressed_masks_are_decoded_as_pycocotools_encodes_them():
    for seed in range(20):
        mask = np.asfortranarray(cv2.resize(draw(seed, 6, 8), (WIDTH * 9, HEIGHT * 9)) // 128)
        code = rle.encode(mask)
        counts = decode_counts(code['counts'])
        assert sum(counts) == mask.size and sum(counts[1::2]) == mask.sum() == rle.area(code)
        assert not list(check_mask(code, *mask.shape))


# Segmentation maps.


def wide_map(path: Path) -> None:
    """Write a map of 16 bits with a label that MMSegmentation would read as 0."""
    write(path, np.where(draw(0, HEIGHT, WIDTH) < 128, 256, 0).astype(np.uint16))


@pytest.mark.parametrize(
    ('plant', 'kind', 'words'),
    [
        (lambda path: write(path, draw(0, HEIGHT, WIDTH) % 2 * 7), 'label out of range', '0 to 1 and 255'),
        (wide_map, 'label out of range', '256 ('),
        (lambda path: write(path, draw(0, 9, 9) % 2), 'wrong segmentation map size', 'the map is 9×9, its image 32×24'),
        (lambda path: write(path, draw(0)), 'invalid segmentation map', '3 channels'),
    ],
)
def test_faults_of_segmentation_maps(plant, kind, words, tmp_path):
    cfg = make_config('mmseg', tmp_path)
    broken = tmp_path / 'maps' / 'train' / '1.png'
    plant(broken)
    (fault,) = run(cfg).faults
    assert (fault.kind, fault.path) == (kind, str(broken)) and words in fault.message


@pytest.mark.parametrize('value', [0, 1, 2, 3, 254, 255])
def test_labels_with_reduce_zero_label(value, tmp_path):
    """0 is ignored, the classes are 1 and 2 in the file; 255 is ignored, too."""
    cfg = make_config('mmseg', tmp_path)
    for split in ('train', 'val'):
        cfg[f'{split}_dataloader'].dataset.reduce_zero_label = True
    write(tmp_path / 'maps' / 'train' / '1.png', draw(0, HEIGHT, WIDTH) % 2 * 0 + value)
    report = run(cfg)
    assert kinds(report.faults) == ([] if value in (0, 1, 2, 255) else ['label out of range'])
    assert kinds(report.warnings) == (['nothing labeled'] if value in (0, 255) else [])


def test_labels_of_a_subset_of_classes(tmp_path):
    """The labels in the files are those of all classes that the dataset knows."""
    cfg = make_config('mmseg', tmp_path)
    dataset = cfg.train_dataloader.dataset
    dataset.type, dataset.metainfo = 'PascalContextDataset59', dict(classes=['bag', 'bed'])
    dataset.ann_file, dataset.img_suffix = '', '.jpg'
    write(tmp_path / 'maps' / 'train' / '1.png', draw(0, HEIGHT, WIDTH) % 60)  # 59 classes, from 1
    write(tmp_path / 'maps' / 'train' / '2.png', draw(0, HEIGHT, WIDTH) % 61)
    report = run(cfg, 'train')
    (fault,) = report.faults
    assert fault.path.endswith('train/2.png') and '60 (' in fault.message and '0 to 59 and 255' in fault.message
    assert kinds(report.warnings) == ['nothing labeled']  # 0.png and 3.png have other classes only


def test_map_with_a_palette(tmp_path):
    cfg = make_config('mmseg', tmp_path)
    path = tmp_path / 'maps' / 'train' / '1.png'
    image = Image.fromarray(draw(0, HEIGHT, WIDTH) % 2).convert('P')
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.save(path)
    assert not run(cfg).faults


# Labels and lists of files.


@pytest.mark.parametrize('label', [2, -1])
def test_image_labels_out_of_range(label, tmp_path):
    cfg = make_config('mmpretrain', tmp_path)
    (tmp_path / 'train.txt').write_text(f'a/0.jpg 0\nb/1.jpg 1\na/2.jpg {label}\na/0.jpg 0\n')
    cfg.train_dataloader.dataset.ann_file = 'train.txt'
    report = run(cfg)
    assert [(fault.kind, Path(fault.path).name) for fault in report.faults] == [
        ('label out of range', '2.jpg'),
        ('duplicate file', '0.jpg'),
    ]
    assert kinds(report.warnings) == ['unused file']  # 3.jpg


@pytest.mark.parametrize('library', LIBRARIES)
def test_model_with_another_number_of_classes(library, tmp_path):
    cfg = make_config(library, tmp_path)
    heads = {'mmdet': 'roi_head.bbox_head', 'mmseg': 'decode_head', 'mmpretrain': 'head'}
    cfg.merge_from_dict({f'model.{heads[library]}.num_classes': 3})
    report = run(cfg, 'train')
    (fault,) = report.faults
    assert fault.kind == 'number of classes' and f'model.{heads[library]}.num_classes is 3' in fault.message


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
        assert len(report.faults) == COUNT
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
    (fault,) = run(cfg, 'train').faults
    assert fault.kind == 'unusable dataset' and 'mmengine.dataset.BaseDataset' in fault.message


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
    (same,) = report.splits['train'].findings
    assert (same.kind, same.path) == ('same content', str(inside)) and str(source) in same.message
    (leak,) = report.between
    assert (leak.kind, leak.path) == ('same content in two splits', str(between)) and 'train and val' in leak.message


@pytest.mark.parametrize('library', ['mmdet', 'mmseg'])
def test_unused_file_is_a_warning(library, tmp_path):
    cfg = make_config(library, tmp_path)
    extra = images(library, tmp_path, 'train')[0].with_suffix('.png' if library == 'mmseg' else '.JPG')
    write(extra, draw(50))
    (fault,) = run(cfg).warnings
    assert (fault.kind, fault.path) == ('unused file', str(extra))


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
    assert report.splits['train'].images == 2 * COUNT
    assert report.splits['val'].datasets == [
        'val_dataloader.dataset: the same data as train_dataloader.dataset.dataset.dataset.datasets.1'
    ]
    assert kinds(report.faults) == ['unreadable image'] and len(report.faults) == 1


def test_parallel_processes_give_the_same_report(tmp_path):
    cfg = make_config('mmseg', tmp_path)
    for path in images('mmseg', tmp_path, 'train')[1:3]:
        path.write_bytes(b'')
    alone = run(cfg).to_dict()
    assert alone['faults'] == 2
    assert verify(cfg, ('train', 'val'), num_workers=2).to_dict() == alone


def test_report_is_grouped_and_short(tmp_path):
    cfg = make_config('mmdet', tmp_path)
    for path in images('mmdet', tmp_path, 'train'):
        path.write_bytes(b'')
    lines = list(run(cfg).lines(shown=2))
    start = lines.index('  FAULT  unreadable image: 4')
    assert lines[start + 1] == f'    {tmp_path}/train/0.jpg: the file is empty (0 bytes)'
    assert lines[start + 3] == '    … and 2 more'
    assert lines[-1].startswith('4 faults')
    assert any(line.startswith('    Remedy: ') for line in lines)


def test_page_lists_all_kinds():
    page = (ROOT / 'docs' / 'data.md').read_text()
    assert [kind for kind in FAULTS | WARNINGS if f'| {kind} |' not in page] == []
