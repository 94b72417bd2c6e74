"""``tools/new_config.py`` recognizes data for what they are, or says what it saw and which option decides."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mmstvit.apis.new_config import Options, new_config
from mmstvit.errors import DataError, UserError

from ..test_datasets.tiny_data import write
from .test_new_config import HEIGHT, WIDTH, annotate, cityscapes, class_folders, dump, maps_folder, photo

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


def pairs(root: Path, images: str, maps: str) -> None:
    maps_folder(root, images, maps)


def flat_validation(root: Path) -> None:
    class_folders(root, 'train')
    for i in range(3):
        photo(root / f'val/images/{i}.jpg', 50 + i)


def stray(root: Path) -> None:
    class_folders(root)
    photo(root / 'cover.jpg', 99)


def per_object(root: Path) -> None:
    for i in range(3):
        photo(root / f'{i}/images/{i}.jpg', i)
        for j in range(2):
            write(root / f'{i}/masks/{i}{j}abc.png', np.full((HEIGHT, WIDTH), 255 * j, np.uint8))


def per_class(root: Path) -> None:
    for organ in ('heart', 'lung', 'liver'):
        maps_folder(root, 'images/{}.jpg', f'{organ}/{{}}.png', values=(0, 255))


def jpeg_maps(root: Path) -> None:
    maps_folder(root, 'images/{}.png', 'masks/{}.jpg', values=((10, 200, 30), (200, 0, 90), (0, 0, 0)))


def coco_with(root: Path, change: Callable[[dict], None], name: str = 'a.json', images: str = '') -> None:
    for i in range(5):
        photo(root / f'{images}{i}.jpg', i)
    content = annotate([f'{i}.jpg' for i in range(5)])
    change(content)
    dump(root / name, content)


def lvis(content: dict) -> None:
    for image in content['images']:
        image['coco_url'] = f'http://images.example.org/val2017/{image.pop("file_name")}'


AB = {'classes': ['a', 'b']}


def darknet(root: Path) -> None:
    """Images and labels in one folder, lists of both splits, and a picture that is no image of the data."""
    for i in range(8):
        photo(root / f'obj/{i}.jpg', i)
    photo(root / 'chart.png', 50)
    texts(root, {f'obj/{i}.txt': BOX for i in range(8)} | {'obj.names': 'fork\nspoon\n'})
    lists = {'train.txt': range(6), 'val.txt': range(6, 8)}
    texts(root, {name: ''.join(f'data/obj/{i}.jpg\n' for i in part) for name, part in lists.items()})


def restarting_numbers(root: Path) -> None:
    """Images and maps in folders for each place, in which the numbers begin again."""
    for seed, place in enumerate(('a', 'b')):
        for i in range(5):
            photo(root / f'images/{place}/{i}.jpg', 10 * seed + i)
            write(root / f'masks/{place}/{i}.png', np.full((HEIGHT, WIDTH), seed, np.uint8))


def numbered_objects(root: Path) -> None:
    for i in range(6):
        photo(root / f'images/{i}.jpg', i)
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        for value in range(1, 2 + i % 3 + 1):
            labels[4 : 4 + 8, 12 * value : 12 * value + 8] = value
        write(root / f'masks/{i}.png', labels)


def listed(root: Path, build: Callable[[Path], object], **lists: str) -> None:
    build(root)
    texts(root, {f'{name}.txt': '\n'.join(text.split()) + '\n' for name, text in lists.items()})


# Layout -> how to make it, options, task, classes.
FOUND = {
    'yolo': (yolo, {}, 'instances', 'fork spoon'),
    'yolo, images outside': (lambda r: yolo(r, images='images/{}', labels='labels/{}'), {}, 'instances', 'fork spoon'),
    'yolo, numbered names': (
        lambda r: yolo(r, yaml='train: {train}\nval: {val}\nnames:\n  0: fork\n  1: spoon\n'),
        {}, 'instances', 'fork spoon',
    ),
    'yolo, no yaml': (
        lambda r: [yolo(r), (r / 'data.yaml').unlink()], {'classes': ['fork', 'spoon']}, 'instances', 'fork spoon',
    ),
    'darknet': (darknet, {}, 'instances', 'fork spoon'),
    'voc': (voc, {}, 'instances', 'fork spoon'),
    'voc, no ImageSets': (lambda r: voc(r, sets=False), {}, 'instances', 'fork spoon'),
    'voc with label maps': (
        lambda r: [voc(r), maps_folder(r, 'VOC2007/JPEGImages/{}.jpg', 'VOC2007/SegmentationClass/{}.png')],
        {'task': 'instances'}, 'instances', 'fork spoon',
    ),
    'labelme': (labelme, {}, 'instances', 'fork spoon'),
    'lvis': (lambda r: coco_with(r, lvis, images='val2017/'), {}, 'instances', 'fork spoon'),
    'any two folders': (lambda r: pairs(r, 'frames/{}.jpg', 'x/{}.png'), AB, 'segments', 'a b'),
    'rgb and seg': (lambda r: pairs(r, 'rgb/{}.jpg', 'seg/{}.png'), AB, 'segments', 'a b'),
    'sat and map': (
        lambda r: [maps_folder(r, f'{s}/sat/{{}}.jpg', f'{s}/map/{{}}.png', seed=len(s)) for s in ('train', 'val')],
        AB, 'segments', 'a b',
    ),
    'other first words': (lambda r: pairs(r, 'i/img_{}.jpg', 'm/mask_{}.png'), AB, 'segments', 'a b'),
    'leading zeros': (lambda r: pairs(r, 'a/{:03}.jpg', 'b/{}.png'), AB, 'segments', 'a b'),
    'in one folder': (lambda r: pairs(r, '{}.jpg', '{}_Mask.PNG'), AB, 'segments', 'a b'),
    'numbers that begin again': (restarting_numbers, AB, 'segments', 'a b'),
    'maps that number objects, as classes': (
        numbered_objects, {'classes': ['a', 'b', 'c', 'd', 'e'], 'task': 'segments'}, 'segments', 'a b c d e',
    ),
    'a folder in a folder': (lambda r: class_folders(r, 'train/train', 'val/val'), {}, 'classes', 'ant bee'),
    'classes with images/ inside': (
        lambda r: class_folders(r, names=('ant/images', 'bee/images')), {}, 'classes', 'ant bee',
    ),
    'strays left out': (stray, {'skip_stray': True}, 'classes', 'ant bee'),
    'validation without classes': (flat_validation, {'val': '0.2'}, 'classes', 'ant bee'),
}  # fmt: skip
# Layout -> how to make it, options, what the message has.
REFUSED = {
    'per object': (per_object, {}, 'a mask file per object'),
    'per class': (per_class, {}, r'(?s)a mask for each class.*heart/, liver/, lung/.*--maps'),
    'two folders of maps': (
        lambda r: [pairs(r, 'images/{}.jpg', f'{top}/{{}}.png') for top in ('mask', 'manual')],
        AB, r'(?s)mask/.*--maps',
    ),
    'jpeg maps': (jpeg_maps, {'classes': ['a', 'b', 'c']}, r'JPG files .*do not keep values: .*% of the pixels'),
    'flat validation': (flat_validation, {}, r'(?s)val/.* has no folders of classes.*--val 0.2'),
    'stray images': (stray, {}, r'(?s)1 images are beside the folders of classes, such as cover.jpg.*--skip-stray'),
    'folders named like images': (
        lambda r: class_folders(r, names=('images', 'other')), {}, r'(?s)a folder is called images.*--task classes',
    ),
    'folders that are no classes': (
        lambda r: class_folders(r, names=[f'{place}/{kind}' for place in ('ulm', 'bonn') for kind in ('good', 'bad')]),
        {}, r'bonn, ulm in the folder have the same folders in them: bad, good',
    ),
    'splits beside other folders': (
        lambda r: class_folders(r, names=('boxes_train', 'boxes_test', 'query')), {},
        'boxes_test and boxes_train are called like splits',
    ),
    'several maps per image in two splits': (
        lambda r: [
            (cityscapes(r), [shutil.copy(p, str(p).replace('labelIds', 'color')) for p in r.rglob('*_labelIds.png')])
        ],
        AB, r'the ends _gtFine_color.png, _gtFine_labelIds.png(?s:.*)--map-suffix END',
    ),
    'a second mask of an image': (
        lambda r: [pairs(r, '{}.jpg', '{}_mask.png'), shutil.copy(r / '0_mask.png', r / '0_mask_1.png')],
        AB, r'more than one label map, such as 0_mask_1.png(?s:.*)--map-suffix',
    ),
    'a table without a header': (
        lambda r: [photo(r / 'a/0.jpg', 1), photo(r / 'a/1.jpg', 2), texts(r, {'a.csv': '0.jpg,pug\n1.jpg,cat\n'})],
        {}, 'a table of images without a header',
    ),
    'MATLAB alone': (lambda r: [photo(r / 'a/0.jpg', 1), texts(r, {'a.mat': 'MATLAB'})], {}, 'MATLAB files'),
    'a file of another kind': (
        lambda r: [photo(r / 'a/0.jpg', 1), texts(r, {'boxes.txt': 'a/0.jpg 4 5 6 7'})], {},
        "boxes.txt begins with 'a/0.jpg 4 5 6 7'",
    ),
    'cut off': (
        lambda r: [coco_with(r, lambda c: None), (r / 'a.json').write_text((r / 'a.json').read_text()[:900])], {},
        'a.json is cut off at line 1',
    ),
    'web page': (
        lambda r: [class_folders(r), texts(r, {'annotations.json': '<!DOCTYPE html><html></html>'})], {}, 'web page',
    ),
    'git lfs': (
        lambda r: [class_folders(r), texts(r, {'a.json': 'version https://git-lfs.github.com/spec/v1\n'})],
        {}, 'git lfs pull',
    ),
    'latin-1': (
        lambda r: [class_folders(r), (r / 'a.json').write_bytes(b'{"a": "gr\xfcn"}')],
        {}, 'a.json is not in UTF-8: byte 0xfc',
    ),
    'panoptic': (
        lambda r: coco_with(r, lambda c: c.update(annotations=[dict(segments_info=[], image_id=1)])),
        {}, 'panoptic',
    ),
    'label studio': (
        lambda r: [class_folders(r), texts(r, {'tasks.json': '[{"id": 1, "completions": []}]'})], {}, 'Label Studio',
    ),
    'cvat': (
        lambda r: [class_folders(r), texts(r, {'a.xml': '<annotations><version>1.1</version><meta/></annotations>'})],
        {}, 'XML of CVAT',
    ),
    'one-hot': (
        lambda r: [class_folders(r), texts(r, {'train/_classes.csv': 'filename, ant, bee\n0.jpg, 0, 1\n'})],
        {}, 'a column of 0 and 1',
    ),
    'videos': (lambda r: texts(r, {'a.mp4': 'x'}), {}, 'videos without images'),
    'yolo without names': (lambda r: [yolo(r), (r / 'data.yaml').unlink()], {}, '--classes NAME'),
    'yolo, class without name': (lambda r: yolo(r, '7 0.5 0.5 0.1 0.1'), {}, r'0.txt, line 1 has the class 7'),
    'yolo, half a polygon': (lambda r: yolo(r, '0 0.5 0.5 0.1 0.1 0.1 0.1 0.1'), {}, r'0.txt, line 1 has 7 numbers'),
    'voc, broken': (
        lambda r: [voc(r), texts(r, {'VOC2007/Annotations/0.xml': '<annotation><object>'})], {}, 'not a sound XML file',
    ),
    'maps that number objects': (numbered_objects, AB, 'seem to number objects'),
    'a split in another form': (
        lambda r: listed(r, class_folders, train_test_split='1 0 1'), {}, r'train_test_split.txt seems.*--val 0.2',
    ),
    'a table of classes': (
        lambda r: [photo(r / 'train/x1.jpg', 1), texts(r, {'labels.csv': 'id,breed\nx1,pug\n'})], {},
        r'labels.csv(?s:.*)Tables|column id names images \(others: breed with 1 values\)',
    ),
    'JSON lines': (
        lambda r: [photo(r / 'a/0.jpg', 1), texts(r, {'a/metadata.jsonl': '{"file_name": "0.jpg", "text": "x"}\n'})],
        {}, 'column file_name names images',
    ),
    'nothing': (lambda r: texts(r, {'a.doc': ''}), {}, r'1 .doc \(such as a.doc\)'),
    'an option for another task': (class_folders, AB, '--classes does not apply to a folder'),
    'repairs of another format': (voc, {'fix': True}, '--fix does not apply to XML'),
    'another option': (voc, {'map_suffix': '.png'}, '--map-suffix does not apply to XML'),
    'names that mean no class': (
        lambda r: maps_folder(r, 'images/{}.jpg', 'masks/{}.png', values=(0, 1)), {'classes': ['void', 'bus', 'car']},
        '0 is void or bus',
    ),
    'predictions of YOLO with scores': (
        lambda r: yolo(r, '1 0.5 0.25 0.125 0.5 0.93\n'), {}, r'with its score, not a label\. Remove the last',
    ),
    'labels of YOLO in pixels': (
        lambda r: yolo(r, '1 30 20 12 40\n0 0 0 8 9\n'), {},
        r'all lines of all files are in pixels, such as in train/labels/0.txt(?s:.*)\n Write class, x and y [^\n]*$',
    ),
    'a line of YOLO in pixels': (
        lambda r: yolo(r, BOX + '1 30 20 12 40\n'), {}, '0.txt, line 2 has numbers that are not fractions',
    ),
    'missing images': (
        lambda r: [coco_with(r, lambda c: None), (r / '3.jpg').unlink()], {}, '1 of the 5 images .*--skip-missing',
    ),
}  # fmt: skip


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


@pytest.mark.parametrize('layout', FOUND)
def test_data_are_found(layout, tmp_path):
    build, options, task, classes = FOUND[layout]
    cfg, notes = make(tmp_path, build, **options)
    assert notes.startswith(task)
    assert list(cfg.classes) == classes.split()


@pytest.mark.parametrize('layout', REFUSED)
def test_data_are_refused_with_the_reason(layout, tmp_path):
    build, options, message = REFUSED[layout]
    with pytest.raises(UserError, match=message):
        make(tmp_path, build, **options)
    assert not (tmp_path / 'mine.py').exists()


def test_the_task_overrules_what_speaks_against_a_folder_per_class(tmp_path):
    cfg, _ = make(tmp_path, lambda root: class_folders(root, names=('images', 'other')), task='classes')
    assert list(cfg.classes) == ['images', 'other']


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


def test_names_of_lvis_come_from_coco_url(tmp_path):
    cfg, notes = make(tmp_path, lambda root: coco_with(root, lvis, images='val2017/'))
    assert 'LVIS' in notes and annotations(cfg, 'train')['images'][0]['file_name'].startswith('val2017/')


def test_missing_images_are_left_out_if_asked(tmp_path):
    def build(root: Path) -> None:
        coco_with(root, lambda content: None)
        (root / '3.jpg').unlink()

    cfg, notes = make(tmp_path, build, skip_missing=True)
    assert sum(len(annotations(cfg, split)['images']) for split in ('train', 'val')) == 4
    assert 'left out 1 images that are missing (first: 3.jpg)' in notes


def test_maps_with_other_names_get_copies(tmp_path):
    cfg, _ = make(tmp_path, FOUND['other first words'][0], classes=['a', 'b'])
    dataset = cfg.train_dataloader.dataset
    names = Path(dataset.ann_file).read_text().split()
    for name in names:
        copy = cv2.imread(f'{dataset.data_prefix.seg_map_path}/{name}.png', cv2.IMREAD_UNCHANGED)
        source = cv2.imread(str(tmp_path / f'data/m/{name.replace("img", "mask")}.png'), cv2.IMREAD_UNCHANGED)
        assert (copy == source).all()


def test_names_in_utf_16_are_read_and_others_named(tmp_path):
    def build(root: Path, encoding: str = 'utf-16') -> None:
        maps_folder(root, 'images/{}.jpg', 'masks/{}.png')
        (root / 'classes.txt').write_bytes('Straße\nBäume\n'.encode(encoding))

    cfg, _ = make(tmp_path, build)
    assert list(cfg.classes) == ['Straße', 'Bäume']
    with pytest.raises(UserError, match=r'not in UTF-8.*latin-1.*iconv'):
        make(tmp_path / 'b', lambda root: build(root, 'latin-1'))


def test_lists_divide_the_images(tmp_path):
    cfg, notes = make(tmp_path / 'darknet', darknet)
    assert 'train: the images that train.txt lists' in notes and 'not used: 1 images in folders without labels' in notes
    names = {split: [i['file_name'] for i in annotations(cfg, split)['images']] for split in ('train', 'val')}
    assert names == dict(train=[f'obj/{i}.jpg' for i in range(6)], val=['obj/6.jpg', 'obj/7.jpg'])
    cfg, _ = make(
        tmp_path / 'folders', lambda root: listed(root, class_folders, train='ant/0.jpg bee/1.jpg', val='ant/2.jpg')
    )
    lists = {split: Path(cfg[f'{split}_dataloader'].dataset.ann_file).read_text() for split in ('train', 'val')}
    assert lists == dict(train='ant/0.jpg 0\nbee/1.jpg 1\n', val='ant/2.jpg 0\n')
    cfg, _ = make(
        tmp_path / 'maps',
        lambda root: listed(root, lambda r: maps_folder(r, 'images/{}.jpg', 'masks/{}.png'), train='0 1 3', val='2'),
        **AB,
    )
    lists = {split: Path(cfg[f'{split}_dataloader'].dataset.ann_file).read_text() for split in ('train', 'val')}
    assert lists == dict(train='0\n1\n3\n', val='2\n')


def test_a_map_belongs_to_one_image(tmp_path):
    cfg, _ = make(tmp_path, restarting_numbers, **AB)
    dataset = cfg.train_dataloader.dataset
    assert (dataset.data_prefix.img_path, dataset.data_prefix.seg_map_path) == ('images', 'masks')
    names = [
        name
        for split in ('train', 'val')
        for name in Path(cfg[f'{split}_dataloader'].dataset.ann_file).read_text().split()
    ]
    assert sorted(names) == [f'{place}/{i}' for place in 'ab' for i in range(5)]


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
