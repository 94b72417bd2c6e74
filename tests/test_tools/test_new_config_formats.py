"""``tools/new_config.py`` on other formats: the numbers in the config's files are those of the source."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmstvit.errors import DataError

from .data_folders import (
    BOX,
    CENTERS,
    HEIGHT,
    WIDTH,
    YAML,
    Build,
    coco_with,
    labelme,
    lines_of,
    make,
    maps_folder,
    photo,
    texts,
    two_folders,
    voc,
    yolo,
)

POLYGON = '0 0.1 0.2 0.6 0.2 0.6 0.9\n'


def lvis(content: dict) -> None:
    for image in content['images']:
        image['coco_url'] = f'http://images.example.org/val2017/{image.pop("file_name")}'


def convert(folder: Path, build: Build, **options: object) -> tuple[Config, str]:
    """Make a config for data; returns it and the lines that were printed."""
    made = make(folder, build, **options)
    return Config.fromfile(made.path), '\n'.join(made.notes)


def annotations(cfg: Config, split: str) -> dict:
    """The annotation file of a split; its images exist."""
    dataset = cfg[f'{split}_dataloader'].dataset
    content = json.loads(Path(dataset.data_root, dataset.ann_file).read_text())
    folder = Path(dataset.data_root, dataset.data_prefix.img)
    assert all((folder / image['file_name']).is_file() for image in content['images'])
    return content


@pytest.mark.parametrize('line', [BOX, POLYGON])
def test_numbers_of_yolo_are_exact(line, tmp_path):
    cfg, notes = convert(tmp_path, lambda root: yolo(root, line))
    content = annotations(cfg, 'train')
    assert len(content['images']) == 5 and len(content['annotations']) == 4
    assert '2 images are background' in notes
    found = content['annotations'][0]
    numbers = [float(value) for value in line.split()[1:]]
    if line == BOX:
        x, y, w, h = numbers
        assert found['bbox'] == [(x - w / 2) * WIDTH, (y - h / 2) * HEIGHT, w * WIDTH, h * HEIGHT]
        assert found['category_id'] == 2 and not found['segmentation']
        assert cfg.model.type == 'FasterRCNN'
    else:
        expected = [value * (HEIGHT if i % 2 else WIDTH) for i, value in enumerate(numbers)]
        assert found['segmentation'] == [expected]
        assert found['bbox'] == [expected[0], expected[1], expected[2] - expected[0], expected[5] - expected[1]]
        assert found['area'] == pytest.approx(found['bbox'][2] * found['bbox'][3] / 2)


def test_numbers_of_voc_are_exact(tmp_path):
    from mmdet.datasets import VOCDataset

    cfg, notes = convert(tmp_path, voc)
    assert [len(annotations(cfg, split)['images']) for split in ('train', 'val')] == [3, 2]
    spoon, fork = annotations(cfg, 'train')['annotations'][:2]
    assert (spoon['bbox'], spoon['category_id'], spoon['iscrowd']) == ([4, 6.5, 16, 23.5], 2, 0)
    assert (fork['bbox'], fork['iscrowd']) == ([1, 2, 10, 10], 1)
    assert '× difficult' in notes
    theirs = VOCDataset(
        data_root=str(tmp_path / 'data/VOC2007'),
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=('fork', 'spoon')),
        pipeline=[],
    )
    x1, y1, x2, y2 = theirs.get_data_info(0)['instances'][1]['bbox']
    assert [x1 + 1, y1 + 1, x2 - x1, y2 - y1] == fork['bbox']  # it counts pixels from 0


@pytest.mark.parametrize(
    ('header', 'row', 'box'),
    [
        ('file,x1,y1,x2,y2,label', '{}.jpg,4,6.5,20,30,fork', [4, 6.5, 16, 23.5]),
        ('ImageID,LabelName,XMin,XMax,YMin,YMax', '{},fork,0.125,0.5,0.25,0.75', [8, 12, 24, 24]),
        ('path,class,left,top,width,height', 'old/{}.jpg,fork,40,30,20,10', [40, 30, 20, 10]),
        ('image_name,label_name,bbox_x,bbox_y,bbox_width,bbox_height', '{}.jpg,fork,40,30,20,10', [40, 30, 20, 10]),
    ],
)
def test_numbers_of_tables_are_exact(header, row, box, tmp_path):
    def build(root: Path) -> None:
        for i in range(5):
            photo(root / f'images/{i}.jpg', i)
        empty = row.format(4).split('fork')[0].split(',')[0] + ',' * header.count(',')  # an image without objects
        texts(root, {'labels.csv': '\n'.join([header, *map(row.format, range(4)), empty])})

    cfg, _ = convert(tmp_path, build)
    parts = [annotations(cfg, split) for split in ('train', 'val')]
    assert sum(len(part['images']) for part in parts) == 5
    assert [item['bbox'] for part in parts for item in part['annotations']] == 4 * [box]


@pytest.mark.parametrize(('given', 'classes'), [([], ['0', '2']), (['fork', 'knife', 'spoon'], ['fork', 'spoon'])])
def test_lists_of_boxes_of_hugging_face(given, classes, tmp_path):
    def build(root: Path) -> None:
        for top, count in (('train', 20), ('validation', 3)):
            boxes = {0: [], 1: [[4, 6.5, 16, 23.5], [1, 2, 10, 10]]}
            rows = [
                dict(
                    file_name=f'{i}.jpg', width=WIDTH, objects=dict(bbox=boxes[i % 2], categories=[2, 0][: 2 * (i % 2)])
                )
                for i in range(count)
            ]
            for i in range(count):
                photo(root / f'data/{top}/{i}.jpg', count + i)
            texts(root, {f'data/{top}/metadata.jsonl': '\n'.join(map(json.dumps, rows))})

    cfg, notes = convert(tmp_path, build, classes=given)
    assert list(cfg.classes) == classes and ('the classes are numbers (0, 2)' in notes) == (not given)
    for split, count in (('train', 20), ('val', 3)):
        content = annotations(cfg, split)
        found = [(item['bbox'], classes[item['category_id'] - 1]) for item in content['annotations']]
        expected = [([4, 6.5, 16, 23.5], classes[1]), ([1, 2, 10, 10], classes[0])]
        assert len(content['images']) == count and found == expected * (count // 2)


def test_shapes_of_labelme(tmp_path):
    shapes = [
        dict(label='spoon', points=[[20, 20], [23, 24]], shape_type='circle'),
        dict(label='fork', points=[[30, 10], [40.5, 22]], shape_type='rectangle'),
        dict(label='fork', points=[[1, 1], [9, 1], [9, 9]], shape_type='polygon', group_id=4),
        dict(label='fork', points=[[2, 20], [9, 20], [9, 29.5]], shape_type='polygon', group_id=4),
        dict(label='fork', points=[[3, 3]], shape_type='point'),
        dict(label='__ignore__', points=[[0, 0], [9, 0], [9, 9]], shape_type='polygon'),
    ]
    cfg, notes = convert(tmp_path, lambda root: labelme(root, shapes))
    circle, rectangle, group = annotations(cfg, 'train')['annotations'][:3]
    assert circle['area'] == pytest.approx(math.pi * 25, rel=0.01)
    assert circle['bbox'] == pytest.approx([15, 15, 10, 10], abs=0.02)
    assert rectangle['segmentation'] == [[30, 10, 40.5, 10, 40.5, 22, 30, 22]]
    assert len(group['segmentation']) == 2 and group['bbox'] == [1, 1, 8, 28.5]
    assert '5 × a shape of the type point' in notes and '5 × a shape of __ignore__' in notes


@pytest.mark.parametrize('corners', [2, 4, 'outline', 'skew'])
def test_rectangles_of_labelme_are_boxes_unless_others_have_outlines(corners, tmp_path):
    points = [[40.5, 22], [30, 22], [30, 10], [40.5, 10]]
    shapes = [dict(label='fork', points=points[::2] if corners == 2 else points, shape_type='rectangle')]
    shapes += [dict(label='fork', points=[[1, 1], [9, 1], [9, 9]], shape_type='rotation')]
    if corners == 'outline':
        shapes += [dict(label='spoon', points=[[1, 1], [9, 1], [9, 9]], shape_type='polygon')]
    if corners == 'skew':
        shapes += [dict(label='spoon', points=[[1, 3], [4, 1], [6, 4], [3, 6]], shape_type='rectangle')]
    cfg, notes = convert(tmp_path, lambda root: labelme(root, shapes))
    box = annotations(cfg, 'train')['annotations'][0]
    assert (box['bbox'], box['area']) == ([30, 10, 10.5, 12], 126)
    assert '5 × a shape of the type rotation, learned as background' in notes
    masks = corners in ('outline', 'skew')
    assert bool(box['segmentation']) == masks == ('5 of 10 objects are rectangles' in notes)
    assert cfg.model.type == ('MaskRCNN' if masks else 'FasterRCNN')
    assert ('all polygons have four' in notes) == (corners == 'skew')


def classes_of(cfg: Config) -> dict[str, set[str]]:
    """Folder of an image -> names of the classes of its objects."""
    found: dict[str, set[str]] = {}
    for part in (annotations(cfg, split) for split in ('train', 'val')):
        names = {category['id']: category['name'] for category in part['categories']}
        images = {image['id']: image['file_name'] for image in part['images']}
        assert [*names.values()] == list(cfg.classes)
        for item in part['annotations']:
            found.setdefault(images[item['image_id']].split('/')[0], set()).add(names[item['category_id']])
    return found


@pytest.mark.parametrize(
    ('ben', 'option', 'classes'),
    [
        ('sprite\ncola\n', None, ['cola', 'sprite']),
        ('sprite\ncola\n', 'ben', ['sprite', 'cola']),
        ('fanta\ncola\n', None, ['cola', 'sprite', 'fanta']),
    ],
)
def test_names_of_each_folder_apply_to_its_labels(ben, option, classes, tmp_path):
    names = {'anna/classes.txt': 'cola\nsprite\n', 'ben/classes.txt': ben}
    options = {'classes': [str(tmp_path / f'data/{option}/classes.txt')]} if option else {}
    cfg, notes = convert(tmp_path, two_folders(names, {'anna': 0, 'ben': 1}), **options)
    assert classes_of(cfg) == {'anna': {'cola'}, 'ben': {'cola'}} and list(cfg.classes) == classes
    assert 'names of ben/classes.txt: 3 files of labels' in notes


@pytest.mark.parametrize(('first', 'second'), [(['logo'], ['tire', 'logo']), (['fork', 'logo'], ['logo', 'fork'])])
def test_several_exports_of_yolo_are_joined_by_name(first, second, tmp_path):
    def build(root: Path) -> None:
        for top, names in (('one', first), ('two', second)):
            yaml = YAML.replace('path: ../data\n', '').replace('nc: 2', f'nc: {len(names)}')
            line = BOX.replace('1', str(names.index('logo')), 1)
            yolo(root / top, line, yaml=yaml.replace('[fork, spoon]', f'[{", ".join(names)}]'))

    cfg, notes = convert(tmp_path, build)
    assert classes_of(cfg) == {'one': {'logo'}, 'two': {'logo'}} and 'no list names' not in notes
    assert [len(annotations(cfg, split)['images']) for split in ('train', 'val')] == [10, 10]
    assert list(cfg.classes) == list(dict.fromkeys([*first, *second]))


def test_names_of_lvis_come_from_coco_url(tmp_path):
    cfg, notes = convert(tmp_path, lambda root: coco_with(root, lvis, images='val2017/'))
    assert 'LVIS' in notes and annotations(cfg, 'train')['images'][0]['file_name'].startswith('val2017/')


def test_two_values_of_one_name_are_one_class(tmp_path):
    build = lambda root: maps_folder(root, 'images/{}.jpg', 'masks/{}.png', values=(0, 1, 2))  # noqa: E731
    cfg, _ = convert(tmp_path, build, classes=['0=wall', '1=person', '2=person'])
    assert list(cfg.classes) == ['wall', 'person']
    maps = Path(cfg.train_dataloader.dataset.data_prefix.seg_map_path)
    assert np.unique(cv2.imread(str(next(maps.glob('*.png'))), cv2.IMREAD_UNCHANGED)).tolist() == [0, 1]


def corners(x: float, y: float, w: float, h: float) -> tuple[float, ...]:
    return x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2


def face(x: float, y: float, w: float, h: float) -> tuple[float, ...]:
    return x, y, w, h, x - w / 4, y - h / 4, 2.0, x + w / 4, y - h / 4, 1.0, 0.0, 0.0, 0.0


@pytest.mark.parametrize(
    ('numbers', 'masks'), [(lambda *box: (*box, *corners(*box)), False), (face, False), (corners, True)]
)
def test_boxes_with_keypoints_are_told_from_polygons(numbers, masks, tmp_path):
    cfg, notes = convert(tmp_path, lines_of(numbers))
    content = [annotations(cfg, split) for split in ('train', 'val')]
    size = {image['file_name']: (image['width'], image['height']) for part in content for image in part['images']}
    assert ('4 × keypoints' in notes) != masks
    for part in content:
        name_of = {image['id']: image['file_name'] for image in part['images']}
        for item in part['annotations']:
            assert bool(item.get('segmentation')) == masks
            name = name_of[item['image_id']]
            (x, y, w, h), (width, height) = CENTERS[int(Path(name).stem)], size[name]
            expected = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            assert item['bbox'] == pytest.approx(expected, abs=0.01)


def test_lines_that_may_be_boxes_with_keypoints_or_polygons_need_an_option(tmp_path):
    def portrait(x: float, y: float, w: float, h: float) -> tuple[float, ...]:
        return 0.5, 0.5, 0.5, 0.6, 0.4, 0.4 + w / 10, 0.6, 0.4 + h / 10, 0.5, 0.6

    with pytest.raises(DataError, match=r'boxes with keypoints or polygons(?s:.*)--shapes boxes or --shapes polygons'):
        make(tmp_path / 'asked', lines_of(portrait))
    for shapes in ('boxes', 'polygons'):
        cfg, _ = convert(tmp_path / shapes, lines_of(portrait), shapes=shapes)
        assert bool(annotations(cfg, 'train')['annotations'][0].get('segmentation')) == (shapes == 'polygons')
