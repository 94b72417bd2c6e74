"""``tools/new_config.py`` on the layouts of public data sets: the right data, or the cause and what decides."""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmstvit.apis.new_config import Options, new_config
from mmstvit.errors import UserError

from ..test_datasets.tiny_data import draw, write
from .test_new_config import annotate, cityscapes, dump, maps_folder, photo
from .test_new_config_formats import XML, texts

SEEDS = itertools.count(1000)
AB = {'classes': ['a', 'b']}
COLORS = ((0, 0, 0), (0, 64, 128))


def picture(seed: int) -> np.ndarray:
    return cv2.resize(draw(seed, 6, 7, 3), (96, 80), interpolation=cv2.INTER_CUBIC)


def photos(root: Path, *patterns: str, count: int = 4, start: int = 0) -> None:
    for pattern in patterns:
        for i in range(start, start + count):
            photo(root / pattern.format(i), next(SEEDS))


def pairs(root: Path, *both: str, count: int = 4, start: int = 0, values: object = (0, 1)) -> None:
    """Photographs, and label maps for them in each of the other patterns."""
    for maps in both[1:]:
        maps_folder(root, both[0], maps, count, start, values)


def lines(root: Path, file: str, *patterns: str, numbers: range = range(4)) -> None:
    texts(root, {file: ''.join(f'{pattern.format(i)}\n' for pattern in patterns for i in numbers)})


def voc_files(root: Path, *patterns: str, count: int = 4) -> None:
    files = [pattern.format(i) for pattern in patterns for i in range(count)]
    texts(root, {f'{file}.xml': XML.format(name=Path(file).name) for file in files})


def oxford_pets(root: Path) -> None:
    pairs(root, 'images/pug_{}.jpg', 'annotations/trimaps/pug_{}.png', count=6, values=(1, 2))
    voc_files(root, 'annotations/xmls/pug_{}')
    lines(root, 'annotations/list.txt', 'pug_{} 1 1 1', numbers=range(6))
    lines(root, 'annotations/trainval.txt', 'pug_{} 1 1 1')
    lines(root, 'annotations/test.txt', 'pug_{} 1 1 1', numbers=range(4, 6))


def food_101(root: Path) -> None:
    kinds = ('images/pie/{}.jpg', 'images/ribs/{}.jpg')
    photos(root, *kinds, count=5)  # numbers begin again in each class
    lines(root, 'meta/train.txt', 'pie/{}', 'ribs/{}')
    lines(root, 'meta/test.txt', 'pie/{}', 'ribs/{}', numbers=range(4, 5))
    texts(root, {'meta/labels.txt': 'Pie\nSpare ribs\n', 'meta/classes.txt': 'pie\nribs\n'})
    dump(root / 'meta/train.json', dict(pie=[f'pie/{i}' for i in range(4)], ribs=[f'ribs/{i}' for i in range(4)]))


def voc_2007_2012(root: Path) -> None:
    for year in ('2007', '2012'):
        top = f'VOCdevkit/VOC{year}'
        photos(root, f'{top}/JPEGImages/{year}_{{}}.jpg', count=6)
        voc_files(root, f'{top}/Annotations/{year}_{{}}', count=6)
        lines(root, f'{top}/ImageSets/Main/trainval.txt', f'{year}_{{}}', numbers=range(6))
        lines(root, f'{top}/ImageSets/Main/train.txt', f'{year}_{{}}')
        lines(root, f'{top}/ImageSets/Main/val.txt', f'{year}_{{}}', numbers=range(4, 6))
        lines(root, f'{top}/ImageSets/Main/spoon_train.txt', f'{year}_{{}}  1')


def voc_2012(root: Path, **kw: object) -> None:
    top = 'VOC2012'
    pairs(root, f'{top}/JPEGImages/{{}}.jpg', f'{top}/SegmentationClass/{{}}.png', f'{top}/SegmentationObject/{{}}.png')
    photos(root, f'{top}/JPEGImages/{{}}.jpg', start=4)
    voc_files(root, f'{top}/Annotations/{{}}', count=8)
    for kind, count in (('Main', 8), ('Segmentation', 4)):
        lines(root, f'{top}/ImageSets/{kind}/train.txt', '{}', numbers=range(count // 2))
        lines(root, f'{top}/ImageSets/{kind}/val.txt', '{}', numbers=range(count // 2, count))


def drive(root: Path) -> None:
    for split, other in (('training', 'training'), ('test', 'test')):
        pairs(
            root, f'{split}/images/{{}}_{other}.tif', f'{split}/1st_manual/{{}}_manual1.png',
            f'{split}/mask/{{}}_{other}_mask.png', values=(0, 255), start=10 * len(split),
        )  # fmt: skip


def splits_of(pattern: str, maps: str, *splits: str, **kw: object) -> Callable[[Path], None]:
    """Pairs in patterns with ``%s`` for the name of a split."""
    return lambda root: [
        pairs(root, pattern.replace('%s', s), maps.replace('%s', s), start=10 * i, **kw) for i, s in enumerate(splits)
    ]


def imagenet(root: Path) -> None:
    for name in ('n01440764', 'n01443537'):
        photos(root, f'Data/CLS-LOC/train/{name}/{name}_{{}}.JPEG')
        voc_files(root, f'Annotations/CLS-LOC/train/{name}/{name}_{{}}', count=1)
    photos(root, 'Data/CLS-LOC/test/ILSVRC2012_test_{}.JPEG')


def mvtec(root: Path) -> None:
    photos(root, 'train/good/{}.png', 'test/good/{}.png')
    pairs(root, 'test/hole/00{}.png', 'ground_truth/hole/00{}_mask.png')


def davis_2017(root: Path) -> None:
    for i, name in enumerate(('bear', 'dogs', 'bmx')):
        photos(root, f'JPEGImages/480p/{name}/0000{{}}.jpg')
        for k in range(4):
            labels = np.zeros((80, 96), np.uint8)
            for value in range(1, i + 2):
                labels[10:40, 20 * value : 20 * value + 12] = value
            write(root / f'Annotations/480p/{name}/0000{k}.png', labels)


def two_times(root: Path, first: str, second: str) -> None:
    pairs(root, f'{first}/{{}}.png', f'{Path(first).parent}/label/{{}}.png')
    photos(root, f'{second}/{{}}.png')


def parts(root: Path, *ends: str, images: str = 'portraits/{}.jpg', masks: str = 'parts/0000{}') -> None:
    """A mask file for each part of an image; numbers with other padding."""
    photos(root, images)
    maps_folder(root / 'x', '{}.jpg', '{}.png', 1, 0, (0, 255))
    for i in range(4):
        for end in ends:
            path = root / f'{masks.format(i)}{end}'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes((root / 'x/0.png').read_bytes())
    for file in (root / 'x').iterdir():
        file.unlink()


def inaturalist(root: Path) -> None:
    photos(root, 'train_val2019/Birds/12/a{}.jpg', 'train_val2019/Birds/13/b{}.jpg')
    names = [f'train_val2019/Birds/{c}/{k}{i}.jpg' for c, k in ((12, 'a'), (13, 'b')) for i in range(4)]
    content = annotate(names)
    for item in content['annotations']:
        for key in ('bbox', 'segmentation', 'area', 'iscrowd'):
            item.pop(key, None)
    dump(root / 'train2019.json', content)


def dior(root: Path) -> None:
    photos(root, 'JPEGImages/{}.jpg')
    voc_files(root, 'Annotations/Horizontal Bounding Boxes/{}')
    oriented = (
        '<annotation><object><name>ship</name><robndbox><x_left_top>1</x_left_top></robndbox></object></annotation>'
    )
    texts(root, {f'Annotations/Oriented Bounding Boxes/{i}.xml': oriented for i in range(4)})


def with_table(root: Path, table: str, *patterns: str) -> None:
    photos(root, *patterns)
    texts(root, {'train.csv': table})


# Layout -> how to make it, options, classes, images of train, val and test.
FOUND = {
    'Cityscapes': (cityscapes, AB, 'a b', (6, 6)),
    'Oxford pets, label maps': (
        oxford_pets, {'task': 'segments', 'classes': ['1=a', '2=b']}, 'a b', (3, 1, 2),
    ),
    'Food-101': (food_101, {}, 'pie ribs', (6, 2, 2)),
    'MIT indoor': (
        lambda r: [
            photos(r, 'Images/bar/bar_{}.jpg', 'Images/gym/gym_{}.jpg', count=6),
            lines(r, 'TrainImages.txt', 'bar/bar_{}.jpg', 'gym/gym_{}.jpg'),
            lines(r, 'TestImages.txt', 'bar/bar_{}.jpg', 'gym/gym_{}.jpg', numbers=range(4, 6)),
        ],
        {}, 'bar gym', (6, 2, 4),
    ),
    'Pascal VOC 2007 and 2012': (voc_2007_2012, {}, 'fork spoon', (8, 4)),
    'Pascal VOC 2012, label maps': (
        voc_2012, {'task': 'segments', 'maps': 'VOC2012/SegmentationClass', **AB}, 'a b', (2, 2),
    ),
    'Pascal VOC 2012, boxes': (voc_2012, {'task': 'instances'}, 'fork spoon', (4, 4)),
    'LoveDA': (
        lambda r: [splits_of(f'%s/{p}/images_png/{{}}.png', f'%s/{p}/masks_png/{{}}.png', 'Train', 'Val')(r)
                   for p in ('Rural', 'Urban')],
        AB, 'a b', (8, 8),
    ),
    'Mapillary, labels': (
        lambda r: [pairs(r, f'{s}/images/{{}}.jpg', *(f'{s}/{k}/{{}}.png' for k in ('instances', 'labels', 'panoptic')),
                         start=10 * len(s)) for s in ('training', 'validation')],
        {'maps': 'training/labels', **AB}, 'a b', (4, 4),
    ),
    'DRIVE': (drive, {'maps': 'training/1st_manual', **AB}, 'a b', (3, 1, 4)),
    'one of two cameras': (
        lambda r: [(splits_of('%s/rgb/{}.png', '%s/label/{}.png', 'train', 'val')(r), photos(r, 'train/ir/{}.png'),
                    photos(r, 'val/ir/{}.png', start=10))],
        {'images': 'train/rgb', **AB}, 'a b', (4, 4),
    ),
    'numbers that begin again, with pictures of results': (
        lambda r: [(pairs(r, f'case{i}/orig/{{}}.png', f'case{i}/seg/{{}}.png'), photos(r, f'case{i}/overlay/{{}}.png'))
                   for i in (1, 2)],
        {'images': 'case1/orig', **AB}, 'a b', (6, 2),
    ),
    'DUTS': (splits_of('%s/%s-Image/x_{}.jpg', '%s/%s-Mask/x_{}.png', 'DUTS-TR', 'DUTS-TE'), AB, 'a b', (3, 1, 4)),
    'GlaS': (
        splits_of('%s_{}.bmp', '%s_{}_anno.bmp', 'train', 'testA'),
        AB, 'a b', (3, 1, 4),
    ),
    'DAVIS': (
        lambda r: [
            pairs(r, 'JPEGImages/480p/bear/{}.jpg', 'Annotations/480p/bear/{}.png'),
            pairs(r, 'JPEGImages/480p/bmx/{}.jpg', 'Annotations/480p/bmx/{}.png'),
            lines(r, 'ImageSets/480p/train.txt', '/JPEGImages/480p/bear/{0}.jpg /Annotations/480p/bear/{0}.png'),
            lines(r, 'ImageSets/480p/val.txt', '/JPEGImages/480p/bmx/{0}.jpg /Annotations/480p/bmx/{0}.png'),
        ],
        {'task': 'segments', **AB}, 'a b', (4, 4),
    ),
    'tiles that begin again': (
        lambda r: [[pairs(r, f'Tile {i}/images/{{}}.jpg', f'Tile {i}/masks/{{}}.png', values=COLORS) for i in (1, 2)],
                   dump(r / 'classes.json', dict(classes=[dict(title='a', color='#000000'),
                                                          dict(title='b', color='#004080')]))],
        {}, 'a b', (6, 2),
    ),
    'DeepGlobe': (
        lambda r: [pairs(r, 'train/{}_sat.jpg', 'train/{}_mask.png', values=((0,) * 3, (255,) * 3)),
                   texts(r, {'class_dict.csv': 'name,r,g,b\nroad,255,255,255\nbackground,0,0,0\n'})],
        {}, 'road background', (3, 1),
    ),
    'RUGD': (
        lambda r: [pairs(r, 'frames/creek/{}.png', 'annotations/creek/{}.png', values=COLORS),
                   texts(r, {'annotations/colormap.txt': '0 void 0 0 0\n1 dirt 0 64 128\n'})],
        {}, 'dirt', (3, 1),
    ),
    'FoodSeg': (
        lambda r: [splits_of('Images/img_dir/%s/{}.jpg', 'Images/ann_dir/%s/{}.png', 'train', 'test')(r),
                   texts(r, {'category_id.txt': '0\tbackground\n1\tegg tart\n'})],
        {}, 'background,egg tart', (3, 1, 4),
    ),
    'images of COCO in folders of classes': (
        lambda r: [photos(r, 'cat/c{}.jpg', 'dog/d{}.jpg', count=2),
                   dump(r / 'a.json', annotate([f'{k}{i}.jpg' for k in 'cd' for i in range(2)]))],
        {}, 'fork spoon', (3, 1),
    ),
    'a class called like a word of label maps': (
        lambda r: photos(r, 'lfw/Ann_Veneman/Ann_Veneman_{}.jpg', 'lfw/Zico/Zico_{}.jpg', count=2), {},
        'Ann_Veneman Zico', (2, 2),
    ),
    'MVTec AD, divided anew': (mvtec, {'val': '0.25', **AB}, 'a b', (3, 1)),
    'a mask per part, one chosen': (
        lambda r: parts(r, '_skin.png', '_nose.png'), {'map_suffix': '_skin.png', **AB}, 'a b', (3, 1),
    ),
    'a second test set': (
        lambda r: [photos(r, f'{split}/fig/{{}}.jpg', f'{split}/kiwi/{{}}.jpg') for split in ('Training', 'Test')]
        + [photos(r, 'test-more/{}.jpg')],
        {}, 'fig kiwi', (6, 2, 8),
    ),
    'a table that repeats the folders': (
        lambda r: with_table(r, 'image_id,label,age\n' + ''.join(f'{i}a.jpg,blast,4\n' for i in range(4)),
                             'train_images/blast/{}a.jpg', 'train_images/normal/{}b.jpg', 'test_images/{}c.jpg'),
        {}, 'blast normal', (6, 2),
    ),
    'a table about the test set': (
        lambda r: with_table(r, 'file,species\n' + ''.join(f'{i}c.png,x\n' for i in range(4)),
                             'train/grass/{}a.png', 'train/maize/{}b.png', 'test/{}c.png'),
        {}, 'grass maize', (6, 2),
    ),
}  # fmt: skip
# Layout -> how to make it, options, what the message has.
REFUSED = {
    'Pascal VOC 2012': (voc_2012, {}, '--task instances or --task segments'),
    'Oxford pets': (oxford_pets, {}, '--task instances or --task segments'),
    'ImageNet': (imagenet, {}, '--task instances or --task classes'),
    'LEVIR': (
        lambda r: two_times(r, 'train/A', 'train/B'), AB,
        'change detection: train/A/ and train/B/ have the same names(?s:.*) which no model of this package does.$',
    ),
    'LEVIR, one of two': (lambda r: two_times(r, 'A', 'B'), {'images': 'A', **AB}, 'change detection: A/ and B/'),
    'im1 and im2': (lambda r: two_times(r, 'im1', 'im2'), AB, 'change detection: im1/ and im2/'),
    'years': (lambda r: two_times(r, '2016', '2019'), AB, 'change detection: 2016/ and 2019/'),
    'before and after': (lambda r: two_times(r, 'after', 'before'), AB, 'change detection: after/ and before/'),
    'two cameras, with reports': (
        lambda r: [two_times(r, 'color (day)', 'ir'), texts(r, {f'reports/{i}.txt': 'fog' for i in range(4)})], AB,
        r"Choose one: --images '[^']*/color \(day\)'$",
    ),
    'WiderFace': (
        lambda r: [photos(r, 'WIDER_train/images/0--Parade/0_{}.jpg', 'WIDER_train/images/1--Shout/1_{}.jpg'),
                   lines(r, 'wider_face_train_bbx_gt.txt', *(f'{c}_{{}}.jpg\n1\n44 11 20 30 0 0 0 0 0 0'
                                                             for c in ('0--Parade/0', '1--Shout/1')))],
        {}, r'a file that names images, .*wider_face_train_bbx_gt.txt(?s:.*)If 0--Parade, 1--Shout are',
    ),
    'Places': (
        lambda r: photos(r, 'data/a/airfield/{}.jpg', 'data/b/bar/{}.jpg', 'val/{}.jpg'), {},
        'data in the folder have folders in them: data/a, data/b',
    ),
    'classes in groups': (
        lambda r: photos(r, 'animal/cat/{}.jpg', 'animal/dog/{}.jpg', 'vehicle/car/{}.jpg'), {},
        'animal in the folder have folders in them: animal/cat, animal/dog',
    ),
    'CelebAMask': (
        lambda r: [pairs(r, 'CelebA-HQ-img/{}.jpg', 'CelebA-mask-anno/0000{}_skin.png'),
                   pairs(r, 'CelebA-HQ-img/{}.jpg', 'CelebA-mask-anno/0000{}_hair.png')],
        {}, r'CelebA-HQ-img(?s:.*)(map-suffix|label maps)',
    ),
    'a mask per part, with other padding': (
        lambda r: parts(r, '_skin.png', '_nose.png'), {},
        r'the ends _nose.png, _skin.png\n Choose one: --map-suffix END; masks of several .* label map.$',
    ),
    'masks with other names': (
        lambda r: parts(r, '.png', masks='parts/abc{}def'), {},
        r'parts has masks or label maps, portraits has photographs\n Images and masks .* one name: docs/own_data.md.$',
    ),
    'label maps in folders of classes': (
        lambda r: pairs_of_classes(r, '{}.jpg', '{}.png'), {},
        r'a/0.jpg with a/0.png(?s:.*)images per class: 2 folders(?s:.*) Choose: --task segments or --task classes',
    ),
    'small label maps': (
        lambda r: [pairs(r, '{}.jpg', 'masks/{}.png')]
        + [write(r / f'masks/{i}.png', np.repeat(np.uint8([[0, 1]] * 24), 16, 1)) for i in range(4)],
        AB, 'other sizes than their images: masks/0.png has 32×24 pixels, 0.jpg 64×48',
    ),
    'MVTec AD': (mvtec, AB, 'Only images for test have annotations, such as test/hole/000.png.* --val 0.2'),
    'DAVIS 2017': (davis_2017, {}, r'seem to number objects, .* is 1 to 3\n For objects, export .*NAME …$'),
    'iNaturalist': (
        inaturalist, {}, r'train2019.json has a class for each image .*\n docs/own_data.md, "Tables", .* of it.$',
    ),
    'DIOR': (dior, {}, r'Oriented Bounding Boxes has oriented boxes \(robndbox\).*\n If other files .* away.$'),
    'ICDAR 2015': (
        lambda r: [photos(r, 'images/img_{}.jpg'),
                   texts(r, {f'gt/gt_img_{i}.txt': '37,39,74,38,74,40,37,40,Exit' for i in range(4)})],
        {}, '4 files with the names of images, in a form that is not read .gt/gt_img_0.txt begins',
    ),
    'DOTA': (
        lambda r: [photos(r, 'images/P{}.png'),
                   texts(r, {f'labelTxt/P{i}.txt': 'gsd:0.1\n5 6 20 6 20 30 5 30 ship 0\n' for i in range(4)})],
        {}, "4 files with the names of images, in a form that is not read .*'gsd:0.1 5 6 20 6",
    ),
    'BDD100K': (
        lambda r: [photos(r, 'images/b{}a.jpg'),
                   dump(r / 'labels.json', [dict(name=f'b{i}a.jpg', labels=[dict(box2d=[1, 2])]) for i in range(4)])],
        {}, 'a file that names images, in a form that is not read .labels.json begins with',
    ),
    'CrowdHuman': (
        lambda r: [photos(r, 'Images/273{},1a.jpg'),
                   lines(r, 'train.odgt', '{{"ID": "273{},1a", "gtboxes": [1, 2, 3]}}')],
        {}, 'a file that names images, in a form that is not read .train.odgt',
    ),
    'SKU-110K': (
        lambda r: [photos(r, 'images/train_{}.jpg'),
                   lines(r, 'annotations/train.csv', 'train_{}.jpg,1,2,30,40,object')],
        {}, 'a table of images without a header, such as annotations/train.csv',
    ),
    'KITTI': (
        lambda r: [photos(r, 'image_2/00{}.png'), texts(r, {f'calib/00{i}.txt': 'P0: 1 2' for i in range(4)}),
                   texts(r, {f'label_2/00{i}.txt': f'Car 0.0 0 -0.2 {"1.5 " * 11}' for i in range(4)})],
        {}, 'labels of KITTI, such as label_2/000.txt',
    ),
    'LandCover.ai': (
        lambda r: [pairs(r, 'images/M-{}.tif', 'masks/M-{}.tif'), lines(r, 'train.txt', 'M-{}_0', 'M-{}_1'),
                   lines(r, 'val.txt', 'M-{}_2')],
        AB, r't.*.txt seems to say which images are for training(?s:.*)--val 0.2',
    ),
    'labeled and unlabeled': (
        lambda r: photos(r, 'Labelled/spot/{}.jpg', 'Labelled/fine/{}.jpg', 'UnLabelled/{}.jpg'), {},
        'Labelled in the folder have folders in them',
    ),
    'sharp and blurred': (
        lambda r: [write(r / f'{k}/{i}.png', picture(i)) for i in range(4) for k in ('sharp', 'blur')], {},
        r'blur/0.png looks like sharp/0.png(?s:.*)If blur, sharp are the classes: --task classes',
    ),
    'MOT17': (
        lambda r: [(photos(r, f'train/MOT17-{i}/img1/{{}}.jpg'), texts(r, {f'train/MOT17-{i}/gt/gt.txt': '1,1,912,4'}))
                   for i in (2, 4)],
        {}, 'each folder in train has a file gt/gt.txt',
    ),
    'parts of the data': (
        lambda r: photos(r, 'images_part_1/{}.jpg', 'images_part_2/{}.jpg'), {},
        'images_part_1, images_part_2 are called like parts of the data',
    ),
    'arrays': (
        lambda r: [photos(r, 'images/{}.png'), texts(r, {f'masks/{i}.npy': 'NUMPY' for i in range(4)})], {},
        r'arrays, such as masks/0.npy(?s:.*)Export them as PNG files',
    ),
    'the same classes in three colors': (
        lambda r: [photos(r, 'gray/ok/{}.jpg', 'gray/bad/{}.jpg', 'color/ok/{}.jpg', 'color/bad/{}.jpg')], {},
        'color, gray in the folder have the same folders in them: bad, ok',
    ),
}  # fmt: skip


def make(folder: Path, build: Callable[[Path], object], options: dict) -> object:
    build(folder / 'data')
    places = {key: folder / 'data' / options[key] for key in ('maps', 'images') if key in options}
    return new_config(Options(data=folder / 'data', out=folder / 'mine.py', **{**options, **places}))


@pytest.mark.parametrize('layout', FOUND)
def test_a_layout_is_found(layout, tmp_path):
    build, options, classes, counts = FOUND[layout]
    data = make(tmp_path, build, options).data
    assert data.classes == classes.split(',' if ',' in classes else None)
    assert (*data.counts.values(),) == counts


@pytest.mark.parametrize('layout', REFUSED)
def test_a_layout_is_refused_with_the_cause(layout, tmp_path):
    build, options, message = REFUSED[layout]
    with pytest.raises(UserError, match=message):
        make(tmp_path, build, options)


def pairs_of_classes(root: Path, image: str, label: str) -> None:
    for i, name in enumerate('ab'):
        pairs(root, f'{name}/{image}', f'{name}/{label}', start=4 * i)
    photos(root, f'b/{image}', start=8, count=1)  # without a label map


@pytest.mark.parametrize(
    ('image', 'label'),
    [
        ('{}.jpg', '{}.png'),
        ('{}.jpg', '{}_mask.png'),
        ('x/{}.png', 'x/{}_label.bmp'),
        ('images/{}.png', 'masks/{}.png'),
    ],
)
def test_label_maps_in_folders_of_classes_are_no_images_of_the_class(image, label, tmp_path):
    made = make(tmp_path, lambda root: pairs_of_classes(root, image, label), {'task': 'classes'})
    listed = [line for content in made.data.files.values() for line in content().decode().splitlines()]
    expected = [f'{"ab"[i > 3]}/{image.format(i)} {int(i > 3)}' for i in range(9)]
    assert sorted(listed) == sorted(expected)
    assert f'left out: 8 label maps beside images (first: a/{label.format(0)})' in made.notes


def test_an_option_for_label_maps_decides_for_them(tmp_path):
    made = make(tmp_path, lambda root: pairs_of_classes(root, 'images/{}.png', 'masks/{}.png'), AB)
    assert (made.data.task, sum(made.data.counts.values())) == ('segments', 8)


def test_colors_of_a_file_decide_which_gray_value_is_which_class(tmp_path):
    made = make(tmp_path, FOUND['DeepGlobe'][0], {})
    made.write()
    path = next(tmp_path.glob('mine_maps/train/*.png'))
    assert [cv2.imread(str(path), -1)[0, column] for column in (0, -1)] == [1, 0]  # left black, right white


def test_four_corners_are_said_to_be_rotated_boxes(tmp_path):
    def build(root: Path) -> None:
        photos(root, 'images/train/{}.jpg')
        texts(root, {f'labels/train/{i}.txt': '0 0.1 0.1 0.5 0.2 0.4 0.6 0.05 0.5\n' for i in range(4)})

    assert 'all polygons have four corners' in '\n'.join(make(tmp_path, build, {'classes': ['ship']}).notes)
