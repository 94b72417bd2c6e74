"""``tools/new_config.py`` on other formats: the numbers in the config's files are those of the source."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmstvit.apis.new_config import Options, new_config
from mmstvit.errors import DataError, UserError

from .test_new_config import HEIGHT, WIDTH, annotate, dump, maps_folder, photo

YAML = 'path: ../data\ntrain: {train}\nval: {val}\nnc: 2\nnames: [fork, spoon]\n'
XML = """<annotation><folder>x</folder><filename>{name}.jpg</filename>
<object><name>spoon</name><bndbox><xmin>4</xmin><ymin>6.5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>
<object><name>fork</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>12</ymax></bndbox></object></annotation>"""
BOX = '1 0.5 0.25 0.125 0.5\n'
POLYGON = '0 0.1 0.2 0.6 0.2 0.6 0.9\n'


def texts(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def yolo(root: Path, line: str = BOX, images: str = '{}/images', labels: str = '{}/labels', yaml: str = YAML) -> None:
    for seed, split in enumerate(('train', 'valid')):
        for i in range(5):
            photo(root / images.format(split) / f'{i}.jpg', 10 * seed + i)
        texts(root, {f'{labels.format(split)}/{i}.txt': line for i in range(4)})  # the last image is background
    yaml = yaml.format(train=f'../{images.format("train")}', val=f'../{images.format("valid")}')
    texts(root, {'data.yaml': yaml, 'README.roboflow.txt': 'Exported by somebody\n'})


def voc(root: Path, sets: bool = True) -> None:
    for i in range(5):
        photo(root / f'VOC2007/JPEGImages/{i}.jpg', i)
        texts(root, {f'VOC2007/Annotations/{i}.xml': XML.format(name=i)})
    main = 'VOC2007/ImageSets/Main'
    texts(
        root,
        {f'{main}/train.txt': '0\n1\n2\n', f'{main}/val.txt': '3\n4\n', f'{main}/fork_train.txt': '0 1\n'}
        if sets
        else {},
    )


def labelme(root: Path, shapes: list[dict] | None = None) -> None:
    circle = dict(label='spoon', points=[[20, 20], [23, 24]], shape_type='circle')
    rectangle = dict(label='fork', points=[[30, 10], [40.5, 22]], shape_type='rectangle')
    for i in range(5):
        photo(root / f'{i}.jpg', i)
        content = dict(version='5', imagePath=f'..\\{i}.jpg', shapes=shapes or [circle, rectangle])
        dump(root / f'{i}.json', content)


def coco_with(root: Path, change: Callable[[dict], None], name: str = 'a.json', images: str = '') -> None:
    for i in range(5):
        photo(root / f'{images}{i}.jpg', i)
    content = annotate([f'{i}.jpg' for i in range(5)])
    change(content)
    dump(root / name, content)


def lvis(content: dict) -> None:
    for image in content['images']:
        image['coco_url'] = f'http://images.example.org/val2017/{image.pop("file_name")}'


def make(folder: Path, build: Callable[[Path], object], **options: object) -> tuple[Config, str]:
    """Make a config for data; returns it and the lines that were printed."""
    build(folder / 'data')
    before = {path: path.stat().st_mtime_ns for path in (folder / 'data').rglob('*')}
    made = new_config(Options(data=folder / 'data', out=folder / 'mine.py', **options))
    made.write()
    assert {path: path.stat().st_mtime_ns for path in (folder / 'data').rglob('*')} == before
    return Config.fromfile(made.path), '\n'.join(made.notes)


def annotations(cfg: Config, split: str) -> dict:
    """The annotation file of a split; its images exist."""
    dataset = cfg[f'{split}_dataloader'].dataset
    content = json.loads(Path(dataset.data_root, dataset.ann_file).read_text())
    folder = Path(dataset.data_root, dataset.data_prefix.img)
    assert all((folder / image['file_name']).is_file() for image in content['images'])
    return content


def test_images_of_a_split_without_any_label_are_background(tmp_path):
    build = lambda root: [yolo(root), shutil.rmtree(root / 'valid/labels')]  # noqa: E731
    cfg, notes = make(tmp_path, build)
    assert '6 images are background' in notes and 'val: 5 images without annotations' in notes
    assert len(annotations(cfg, 'train')['images']) + len(annotations(cfg, 'val')['images']) == 5


def test_a_fraction_replaces_the_validation_of_the_data(tmp_path):
    cfg, notes = make(tmp_path / 'yolo', yolo, val='0.4')
    assert 'not used: 5 images of val, which --val replaces' in notes
    assert [len(annotations(cfg, split)['images']) for split in ('train', 'val')] == [3, 2]

    def coco(root: Path) -> None:
        coco_with(root, lambda content: None, 'train.json')
        dump(root / 'val.json', annotate(['0.jpg']))

    _, notes = make(tmp_path / 'coco', coco, val='0.4')
    assert 'val.json, which --val replaces' in notes and 'split by image: 3 for train and 2 for val' in notes


@pytest.mark.parametrize('line', [BOX, POLYGON])
def test_numbers_of_yolo_are_exact(line, tmp_path):
    cfg, notes = make(tmp_path, lambda root: yolo(root, line))
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

    cfg, notes = make(tmp_path, voc)
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


def test_annotations_of_images_that_were_resized_are_refused(tmp_path):
    def resized(root: Path, width: int) -> None:
        voc(root)
        size = f'</filename><size><width>{width}</width><height>96</height><depth>3</depth></size>'
        for file in root.rglob('Annotations/*.xml'):
            file.write_text(file.read_text().replace('</filename>', size))

    with pytest.raises(DataError, match=r'3 of 3 images .* has 64×48 pixels, its annotations are for 128×96'):
        make(tmp_path / 'voc', lambda root: resized(root, 128))
    make(tmp_path / 'wrong', lambda root: resized(root, 10))  # the boxes are not inside: this size says nothing

    def labelme_resized(root: Path) -> None:
        labelme(root)
        for file in root.glob('*.json'):
            dump(file, {**json.loads(file.read_text()), 'imageWidth': 128, 'imageHeight': 48})

    with pytest.raises(DataError, match='64×48 pixels, its annotations are for 128×48'):
        make(tmp_path / 'labelme', labelme_resized)


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

    cfg, _ = make(tmp_path, build)
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

    cfg, notes = make(tmp_path, build, classes=given)
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
    cfg, notes = make(tmp_path, lambda root: labelme(root, shapes))
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
    cfg, notes = make(tmp_path, lambda root: labelme(root, shapes))
    box = annotations(cfg, 'train')['annotations'][0]
    assert (box['bbox'], box['area']) == ([30, 10, 10.5, 12], 126)
    assert '5 × a shape of the type rotation, learned as background' in notes
    masks = corners in ('outline', 'skew')
    assert bool(box['segmentation']) == masks == ('5 of 10 objects are rectangles' in notes)
    assert cfg.model.type == ('MaskRCNN' if masks else 'FasterRCNN')
    assert ('all polygons have four' in notes) == (corners == 'skew')


def two_folders(names: dict[str, str], numbers: dict[str, int]) -> Callable[[Path], None]:
    """Labels of two people, with files of names; a number for each folder."""

    def build(root: Path) -> None:
        for seed, (top, number) in enumerate(numbers.items()):
            for i in range(3):
                photo(root / f'{top}/{top}{i}.jpg', 10 * seed + i)
                texts(root, {f'{top}/{top}{i}.txt': BOX.replace('1', str(number), 1)})
        texts(root, names)

    return build


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
    cfg, notes = make(tmp_path, two_folders(names, {'anna': 0, 'ben': 1}), **options)
    assert classes_of(cfg) == {'anna': {'cola'}, 'ben': {'cola'}} and list(cfg.classes) == classes
    assert 'names of ben/classes.txt: 3 files of labels' in notes


@pytest.mark.parametrize(
    ('names', 'option', 'reason'),
    [
        (
            {'classes.txt': 'cola\nsprite\n', 'ben/classes.txt': 'sprite\ncola\n'}, ['cola', 'sprite'],
            r'number 0 is cola in classes.txt and sprite in ben/classes.txt(?s:.*)new_config.py \S*/data/ben',
        ),
        ({'anna/classes.txt': 'cola\nfanta\n', 'ben/classes.txt': 'cola\n'}, ['cola', 'sprite'], 'Omit --classes'),
        ({'a/classes.txt': 'cola\nfanta\n', 'b/classes.txt': 'cola\n'}, ['cola', 'sprite'], 'fanta .* no class'),
        (
            {'a.yaml': 'nc: 1\nnames: [cola]\n', 'b.yaml': 'nc: 1\nnames: [fanta]\n'}, None,
            r'number 0 is cola in a.yaml and fanta in b.yaml(?s:.*)new_config.py \S*/data/a.yaml',
        ),
        ({'labels.txt': 'cola\nfanta\n', 'classes.txt': 'fanta\ncola\n'}, None, '--classes FILE'),
    ],
)  # fmt: skip
def test_names_that_contradict_each_other_are_refused(names, option, reason, tmp_path):
    with pytest.raises(DataError, match=reason):
        make(tmp_path, two_folders(names, {'anna': 0, 'ben': 0}), classes=option)


@pytest.mark.parametrize(('first', 'second'), [(['logo'], ['tire', 'logo']), (['fork', 'logo'], ['logo', 'fork'])])
def test_several_exports_of_yolo_are_joined_by_name(first, second, tmp_path):
    def build(root: Path) -> None:
        for top, names in (('one', first), ('two', second)):
            yaml = YAML.replace('path: ../data\n', '').replace('nc: 2', f'nc: {len(names)}')
            line = BOX.replace('1', str(names.index('logo')), 1)
            yolo(root / top, line, yaml=yaml.replace('[fork, spoon]', f'[{", ".join(names)}]'))

    cfg, notes = make(tmp_path, build)
    assert classes_of(cfg) == {'one': {'logo'}, 'two': {'logo'}} and 'no list names' not in notes
    assert [len(annotations(cfg, split)['images']) for split in ('train', 'val')] == [10, 10]
    assert list(cfg.classes) == list(dict.fromkeys([*first, *second]))


def test_names_of_lvis_come_from_coco_url(tmp_path):
    cfg, notes = make(tmp_path, lambda root: coco_with(root, lvis, images='val2017/'))
    assert 'LVIS' in notes and annotations(cfg, 'train')['images'][0]['file_name'].startswith('val2017/')


def test_missing_images_are_left_out_if_asked(tmp_path):
    def build(root: Path) -> None:
        coco_with(root, lambda content: None)
        (root / '3.jpg').unlink()

    cfg, notes = make(tmp_path, build, skip_missing=True)
    assert sum(len(annotations(cfg, split)['images']) for split in ('train', 'val')) == 4
    assert re.search('left out 1 images of .*a.json, which are missing .first: 3.jpg.', notes)


def test_names_in_utf_16_are_read_and_others_named(tmp_path):
    def build(root: Path, encoding: str = 'utf-16') -> None:
        maps_folder(root, 'images/{}.jpg', 'masks/{}.png')
        (root / 'classes.txt').write_bytes('Straße\nBäume\n'.encode(encoding))

    cfg, _ = make(tmp_path, build)
    assert list(cfg.classes) == ['Straße', 'Bäume']
    with pytest.raises(UserError, match=r'not in UTF-8.* in latin1.*iconv -f latin1'):
        make(tmp_path / 'b', lambda root: build(root, 'latin-1'))


def test_names_in_another_encoding_are_shown_and_replaced_by_an_option(tmp_path):
    def build(root: Path) -> None:
        two_folders({'classes.txt': ''}, {'anna': 1})(root)
        (root / 'classes.txt').write_bytes('機車\r\n汽車\r\n'.encode('cp950'))

    with pytest.raises(UserError, match=r"not in UTF-8.*'機車' in big5(?s:.*)Replace it"):
        make(tmp_path / 'asked', build)
    cfg, _ = make(tmp_path / 'given', build, classes=['機車', '汽車'])
    assert list(cfg.classes) == ['機車', '汽車']


def test_xml_files_whose_images_have_copies_are_named_and_left_out(tmp_path):
    def build(root: Path) -> None:
        voc(root, sets=False)
        for i in range(2):
            photo(root / f'VOC2007/copies/{i}.jpg', i)

    with pytest.raises(
        DataError, match=r'2 of the 5 XML .* have several images of their name .*0.xml, with .*copies/0.jpg'
    ):
        make(tmp_path / 'asked', build, task='instances')
    cfg, notes = make(tmp_path / 'left_out', build, task='instances', skip_missing=True)
    assert 'left out 2 XML files of Pascal VOC whose images have copies' in notes
    assert sum(len(annotations(cfg, split)['images']) for split in ('train', 'val')) == 3


def test_two_values_of_one_name_are_one_class(tmp_path):
    build = lambda root: maps_folder(root, 'images/{}.jpg', 'masks/{}.png', values=(0, 1, 2))  # noqa: E731
    cfg, _ = make(tmp_path, build, classes=['0=wall', '1=person', '2=person'])
    assert list(cfg.classes) == ['wall', 'person']
    maps = Path(cfg.train_dataloader.dataset.data_prefix.seg_map_path)
    assert np.unique(cv2.imread(str(next(maps.glob('*.png'))), cv2.IMREAD_UNCHANGED)).tolist() == [0, 1]


BOXES = ((0.3, 0.4, 0.3, 0.1), (0.7, 0.8, 0.2, 0.2), (0.4, 0.7, 0.4, 0.2), (0.8, 0.2, 0.3, 0.3))


def lines_of(numbers: Callable[[float, float, float, float], tuple]) -> Callable[[Path], None]:
    """Labels with one line per image, made of a box (center, width, height)."""

    def build(root: Path) -> None:
        for i, box in enumerate(BOXES):
            photo(root / f'{i}.jpg', i)
            texts(root, {f'{i}.txt': f'0 {" ".join(f"{number:.6f}" for number in numbers(*box))}\n'})
        texts(root, {'classes.txt': 'plate\n'})

    return build


def corners(x: float, y: float, w: float, h: float) -> tuple[float, ...]:
    return x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2


def face(x: float, y: float, w: float, h: float) -> tuple[float, ...]:
    return x, y, w, h, x - w / 4, y - h / 4, 2.0, x + w / 4, y - h / 4, 1.0, 0.0, 0.0, 0.0


@pytest.mark.parametrize(
    ('numbers', 'masks'), [(lambda *box: (*box, *corners(*box)), False), (face, False), (corners, True)]
)
def test_boxes_with_keypoints_are_told_from_polygons(numbers, masks, tmp_path):
    cfg, notes = make(tmp_path, lines_of(numbers))
    content = [annotations(cfg, split) for split in ('train', 'val')]
    size = {image['file_name']: (image['width'], image['height']) for part in content for image in part['images']}
    assert ('4 × keypoints' in notes) != masks
    for part in content:
        name_of = {image['id']: image['file_name'] for image in part['images']}
        for item in part['annotations']:
            assert bool(item.get('segmentation')) == masks
            name = name_of[item['image_id']]
            (x, y, w, h), (width, height) = BOXES[int(Path(name).stem)], size[name]
            expected = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            assert item['bbox'] == pytest.approx(expected, abs=0.01)


def test_lines_that_may_be_boxes_with_keypoints_or_polygons_need_an_option(tmp_path):
    def portrait(x: float, y: float, w: float, h: float) -> tuple[float, ...]:
        return 0.5, 0.5, 0.5, 0.6, 0.4, 0.4 + w / 10, 0.6, 0.4 + h / 10, 0.5, 0.6

    with pytest.raises(DataError, match=r'boxes with keypoints or polygons(?s:.*)--shapes boxes or --shapes polygons'):
        make(tmp_path / 'asked', lines_of(portrait))
    for shapes in ('boxes', 'polygons'):
        cfg, _ = make(tmp_path / shapes, lines_of(portrait), shapes=shapes)
        assert bool(annotations(cfg, 'train')['annotations'][0].get('segmentation')) == (shapes == 'polygons')


def test_a_polygon_with_a_number_that_is_no_fraction_is_refused(tmp_path):
    with pytest.raises(DataError, match='not fractions'):
        make(tmp_path, lines_of(lambda *box: (0.1, 0.1, 0.9, 0.1, 2.0, 0.3)))
