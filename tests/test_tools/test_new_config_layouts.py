"""``tools/new_config.py`` on layouts of public data: the right data, or the cause and what decides."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mmstvit.errors import UserError

from ..test_datasets.tiny_data import write
from .data_folders import (
    BOX,
    SEEDS,
    XML,
    YAML,
    Build,
    annotate,
    both,
    class_folders,
    coco_folder,
    coco_with,
    dump,
    labelme,
    lines,
    lines_of,
    make,
    pairs,
    photo,
    photos,
    picture,
    texts,
    two_folders,
    voc,
    voc_files,
    with_table,
    yolo,
)

AB = {'classes': ['a', 'b']}
COLORS = ((0, 0, 0), (0, 64, 128))
TWO_BOXES = '<bndbox><xmin>{}</xmin><ymin>6</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>'
TWO_BOXES = f'<annotation><object><name>ant</name>{TWO_BOXES.format(4)}{TWO_BOXES.format(9)}</object></annotation>'


def paint(path: Path, palette: list[tuple[int, int, int]]) -> None:
    """A label map with the values 0 and 1, and their colors."""
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(np.repeat(np.uint8([[0, 1]] * 48), 32, 1))
    image.putpalette([channel for color in palette for channel in color])
    image.save(path)


def white(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.repeat(np.uint8([[0, 255]] * 48), 32, 1)).save(path, tiffinfo={262: 0})


def splits_of(pattern: str, maps: str, *splits: str, **kw: object) -> Build:
    """Pairs in patterns with ``%s`` for the name of a split."""
    return lambda root: [
        pairs(root, pattern.replace('%s', s), maps.replace('%s', s), start=10 * i, **kw) for i, s in enumerate(splits)
    ]


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


def voc_2012(root: Path) -> None:
    top = 'VOC2012'
    pairs(root, f'{top}/JPEGImages/{{}}.jpg', f'{top}/SegmentationClass/{{}}.png', f'{top}/SegmentationObject/{{}}.png')
    photos(root, f'{top}/JPEGImages/{{}}.jpg', start=4)
    voc_files(root, f'{top}/Annotations/{{}}', count=8)
    for kind, count in (('Main', 8), ('Segmentation', 4)):
        lines(root, f'{top}/ImageSets/{kind}/train.txt', '{}', numbers=range(count // 2))
        lines(root, f'{top}/ImageSets/{kind}/val.txt', '{}', numbers=range(count // 2, count))


def drive(root: Path) -> None:
    for split in ('training', 'test'):
        pairs(
            root, f'{split}/images/{{}}_{split}.tif', f'{split}/1st_manual/{{}}_manual1.png',
            f'{split}/mask/{{}}_{split}_mask.png', values=(0, 255), start=10 * len(split),
        )  # fmt: skip


def imagenet(root: Path) -> None:
    for name in ('n01440764', 'n01443537'):
        photos(root, f'Data/CLS-LOC/train/{name}/{name}_{{}}.JPEG')
        voc_files(root, f'Annotations/CLS-LOC/train/{name}/{name}_{{}}', count=3)
    photos(root, 'Data/CLS-LOC/test/ILSVRC2012_test_{}.JPEG')


def mvtec(root: Path) -> None:
    photos(root, 'train/good/{}.png', 'test/good/{}.png')
    pairs(root, 'test/hole/00{}.png', 'ground_truth/hole/00{}_mask.png')


def numbered_objects(root: Path) -> None:
    """Label maps as in DAVIS 2017: 2, 3 or 4 objects with the values from 1."""
    for i in range(6):
        photo(root / f'images/{i}.jpg', i)
        labels = np.zeros((48, 64), np.uint8)
        for value in range(1, 3 + i % 3):
            labels[4:12, 12 * value : 12 * value + 8] = value
        write(root / f'masks/{i}.png', labels)


def two_times(root: Path, first: str, second: str) -> None:
    pairs(root, f'{first}/{{}}.png', f'{Path(first).parent}/label/{{}}.png')
    photos(root, f'{second}/{{}}.png')


def masks(root: Path, images: str, *names: str) -> None:
    """Photographs, and masks for each of them that are not found by number alone."""
    for i in range(4):
        photo(root / images.format(i), next(SEEDS))
        for name in names:
            write(root / name.format(i), np.repeat(np.uint8([[0, 255]] * 48), 32, 1))


def in_alpha(root: Path, photograph: bool) -> None:
    """Photographs, and files of four channels whose alpha channel is the mask."""
    for i in range(4):
        image = picture(next(SEEDS))
        write(root / f'images/{i}.jpg', image)
        alpha = np.zeros_like(image[..., :1])
        alpha[20:40, 30:60] = 255
        write(root / f'masks/{i}.png', np.dstack([image * (alpha > 0) * photograph, alpha]))


def restarting_numbers(root: Path) -> None:
    """Images and maps in folders for each place, in which the numbers begin again."""
    for seed, place in enumerate('ab'):
        for i in range(5):
            photo(root / f'images/{place}/{i}.jpg', 10 * seed + i)
            write(root / f'masks/{place}/{i}.png', np.full((48, 64), seed, np.uint8))


def darknet(root: Path) -> None:
    """Images and labels in one folder, lists of both splits, and a picture that is no image of the data."""
    photos(root, 'obj/{}.jpg', count=8)
    photos(root, 'chart{}.png', count=1)
    texts(root, {f'obj/{i}.txt': BOX for i in range(8)} | {'obj.names': 'fork\nspoon\n'})
    lines(root, 'train.txt', 'data/obj/{}.jpg', numbers=range(6))
    lines(root, 'val.txt', 'data/obj/{}.jpg', numbers=range(6, 8))


def labels_alone(root: Path) -> None:
    """A file in COCO format with a class per image, as iNaturalist has it."""
    photos(root, 'train_val2019/Birds/12/a{}.jpg', 'train_val2019/Birds/13/b{}.jpg')
    content = annotate([f'train_val2019/Birds/{c}/{k}{i}.jpg' for c, k in ((12, 'a'), (13, 'b')) for i in range(4)])
    entries = [dict(id=i['id'], image_id=i['id'], category_id=1 + (i['id'] > 4)) for i in content['images']]
    dump(root / 'train2019.json', {**content, 'annotations': entries})


def pairs_of_classes(root: Path, image: str, label: str) -> None:
    for i, name in enumerate('ab'):
        pairs(root, f'{name}/{image}', f'{name}/{label}', start=4 * i)
    photos(root, f'b/{image}', start=8, count=1)  # without a label map


def pairs_in_a_table(root: Path, count: int) -> None:
    """Pairs without common names, of which a table has ``count``, in the other order."""
    pairs(root, 'x/a{}.jpg', 'y/m{}.png')
    texts(root, {'pairs.csv': 'mask,image\n' + ''.join(f'y/m{3 - i}.png,x/a{i}.jpg\n' for i in range(count))})


def two_ends(root: Path) -> None:
    pairs(root, '{}.jpg', 'label/{}.png')
    pairs(root, '{}.jpg', 'label/{}_pseudo.png', values=COLORS)


def missing(root: Path) -> None:
    coco_with(root, lambda content: None)
    (root / '3.jpg').unlink()


def with_copies(root: Path) -> None:
    voc(root, sets=False)
    photos(root, 'VOC2007/copies/{}.jpg', count=2)


def resized_voc(root: Path, width: int) -> None:
    voc(root)
    size = f'</filename><size><width>{width}</width><height>96</height><depth>3</depth></size>'
    for file in root.rglob('Annotations/*.xml'):
        file.write_text(file.read_text().replace('</filename>', size))


def encoded(root: Path, names: str, encoding: str) -> None:
    pairs(root, 'images/{}.jpg', 'masks/{}.png')
    (root / 'classes.txt').write_bytes(names.encode(encoding))


AGES = (9, 19, 27, 31, 45, 52)
ANNA_BEN = {'anna': 0, 'ben': 0}
COLA = {'classes': ['cola', 'sprite']}
SHIP = '0 0.1 0.1 0.5 0.2 0.4 0.6 0.05 0.5\n'
BOXES = 'filename,width,height,class,xmin,ymin,xmax,ymax\n#.jpg,64,48,fork,4,6.5,20,30\n#.jpg,64,48,spoon,1,2,11,12'
# Layout -> how to make it, options, classes, images of train, val and test, and what the notes say.
FOUND = {
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
    'folders of images that may be classes': (
        lambda r: [pairs(r, f'image/fish_{i}/f_{{}}.png', f'mask/fish_{i}/m_{{}}.png', start=4 * i) for i in (1, 2)],
        AB, 'a b', (6, 2), 'names of the folders of images, fish_1, fish_2 (if these are the classes: new_config.py ',
    ),
    'Pascal VOC 2007 and 2012': (voc_2007_2012, {}, 'fork spoon', (8, 4)),
    'Pascal VOC 2012, label maps': (
        voc_2012, {'task': 'segments', 'maps': 'VOC2012/SegmentationClass', **AB}, 'a b', (2, 2),
    ),
    'Pascal VOC without ImageSets': (lambda r: voc(r, sets=False), {}, 'fork spoon', (4, 1)),
    'labelme': (labelme, {}, 'fork spoon', (4, 1)),
    'an image in two classes': (
        lambda r: [photos(r, 'red/r{}.jpg', 'shirt/s{}.jpg'), shutil.copy(r / 'red/r1.jpg', r / 'shirt')],
        {}, 'red shirt', (7, 2), 'warning: 1 images have two classes (first: red/r1.jpg and shirt/r1.jpg)',
    ),
    'a folder per sample': (
        lambda r: pairs(r, 's{}/image.jpg', 's{}/mask.png'), AB, 'a b', (3, 1), 's0 with s0, 1 pairs such as',
    ),
    'a table of splits beside label maps': (
        lambda r: [pairs(r, 'i/{}.jpg', 'm/{}.png', values=(0, 1)),
                   texts(r, {'split.csv': ',data_mode\n0,val\n1,train\n2,train\n3,test\n'})],
        AB, 'a b', (2, 1, 1), 'val: the images that split.csv lists',
    ),
    'names and values of classes in a JSON file': (
        lambda r: [pairs(r, 'i/{}.jpg', 'm/{}.png', values=(0, 1)), dump(r / 'classes.json', {'a': 0, 'b': 1})],
        {}, 'a b', (3, 1), 'names of classes: ',
    ),
    'values and names of classes in a JSON file': (
        lambda r: [pairs(r, 'i/{}.jpg', 'm/{}.png', values=(0, 1)), dump(r / 'classes.json', {'0': 'a', '1': 'b'})],
        {}, 'a b', (3, 1), 'names of classes: ',
    ),
    'names of classes in a JSON file': (
        lambda r: [pairs(r, 'i/{}.jpg', 'm/{}.png', values=(0, 1)), dump(r / 'classes.json', {'classes': ['a', 'b']})],
        {}, 'a b', (3, 1), 'names of classes: ',
    ),
    'folders that have names of classes, with masks in them, below those of splits': (
        lambda r: [pairs(r, f'{split}/{name}/{{}}.jpg', f'{split}/{name}/{{}}.png', start=start)
                   for start, split in ((0, 'train'), (9, 'val')) for name in ('crack', 'rust')],
        {**AB, 'task': 'segments'}, 'a b', (8, 8), 'names of the folders of images, crack, rust (if these',
    ),
    'a folder per sample, whose mask begins like its image': (
        lambda r: pairs(r, 's{}/scan.jpg', 's{}/scan_mask.png'), AB, 'a b', (3, 1), 's0 with s0, 1 pairs such as',
    ),
    'two boxes in an object of Pascal VOC': (
        lambda r: [photos(r, '{}.jpg'), texts(r, {f'{i}.xml': TWO_BOXES for i in range(4)})],
        {}, 'ant', (3, 1), 'train: 6 objects in 3 images',
    ),
    'renamed images and XML files': (
        lambda r: [photos(r, '{}.jpg'), texts(r, {f'{i}.xml': XML.format(name=(i + 1) % 4) for i in range(4)})],
        {}, 'fork spoon', (3, 1), 'warning: 4 files name other images than those called like them, which are taken',
    ),
    'lists with the split as a suffix': (
        lambda r: [yolo(r, images='{}', labels='{}', yaml='names: [fork, spoon]\n'),
                   lines(r, 'x.train', 'train/{}.jpg'), lines(r, 'x.val', 'valid/{}.jpg')],
        {}, 'fork spoon', (4, 4),
    ),
    'numbered folders beside names': (
        lambda r: [photos(r, '0/{}.jpg', '1/{}.jpg'), texts(r, {'classes.txt': 'cat\ndog\n'})], {}, '0 1', (6, 2),
        'not used: the names in classes.txt; the classes have the names of their folders',
    ),
    'colors of palettes': (
        lambda r: [photos(r, 'x/{}.jpg'), *(paint(r / f'masks/{i}.png', [(0, 0, 0), (0, 9, 0)]) for i in range(4))],
        {'classes': ['#000900=b', '#000000=a']}, 'a b', (3, 1),
    ),
    'YOLO, labels in a folder of another name': (
        lambda r: yolo(r, images='{}_photos', labels='text/{}'), {}, 'fork spoon', (4, 4),
    ),
    'YOLO, validation with the images of training': (
        lambda r: yolo(r, yaml=YAML.format(train='train/images', val='train/images')), {}, 'fork spoon', (4, 4),
        'warning: 5 images are in two splits',
    ),
    'splits in the folders of classes, and a spreadsheet': (
        lambda r: [photos(r, *(f'{name}/{split}/{{}}.jpg' for name in 'ab' for split in ('train', 'val'))),
                   texts(r, {'more.xlsx': ''})],
        {}, 'a b', (8, 8), 'not used: 1 other files: more.xlsx',
    ),
    'YOLO, images outside': (
        lambda r: yolo(r, images='images/{}', labels='labels/{}'), {}, 'fork spoon', (4, 4),
        'warning: train has no object of fork: do the numbers of the classes begin at 1',
    ),
    'YOLO without YAML': (
        lambda r: [yolo(r), (r / 'data.yaml').unlink()], {'classes': ['fork', 'spoon']}, 'fork spoon', (4, 4),
    ),
    'darknet': (darknet, {}, 'fork spoon', (6, 2)),
    'LoveDA': (
        both(*(splits_of(f'%s/{p}/images_png/{{}}.png', f'%s/{p}/masks_png/{{}}.png', 'Train', 'Val')
               for p in ('Rural', 'Urban'))),
        AB, 'a b', (8, 8),
    ),
    'Mapillary, labels': (
        lambda r: [pairs(r, f'{s}/images/{{}}.jpg', *(f'{s}/{k}/{{}}.png' for k in ('instances', 'labels', 'panoptic')),
                         start=10 * len(s)) for s in ('training', 'validation')],
        {'maps': 'training/labels', **AB}, 'a b', (4, 4),
    ),
    'DRIVE': (drive, {'maps': 'training/1st_manual', **AB}, 'a b', (3, 1, 4)),
    'one of two cameras': (
        both(splits_of('%s/rgb/{}.png', '%s/label/{}.png', 'train', 'val'),
             lambda r: [photos(r, 'train/ir/{}.png'), photos(r, 'val/ir/{}.png', start=10)]),
        {'images': 'train/rgb', **AB}, 'a b', (4, 4),
    ),
    'numbers that begin again, with pictures of results': (
        lambda r: [(pairs(r, f'case{i}/orig/{{}}.png', f'case{i}/seg/{{}}.png'), photos(r, f'case{i}/overlay/{{}}.png'))
                   for i in (1, 2)],
        {'images': 'case1/orig', **AB}, 'a b', (6, 2),
    ),
    'DUTS': (splits_of('%s/%s-Image/x_{}.jpg', '%s/%s-Mask/x_{}.png', 'DUTS-TR', 'DUTS-TE'), AB, 'a b', (3, 1, 4)),
    'GlaS': (splits_of('%s_{}.bmp', '%s_{}_anno.bmp', 'train', 'testA'), AB, 'a b', (3, 1, 4)),
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
        both(splits_of('Images/img_dir/%s/{}.jpg', 'Images/ann_dir/%s/{}.png', 'train', 'test'),
             lambda r: texts(r, {'category_id.txt': '0\tbackground\n1\tegg tart\n'})),
        {}, 'background,egg tart', (3, 1, 4),
    ),
    'floating-point images': (
        lambda r: [pairs(r, 'images/{}.tif', 'masks/{}.tif'),
                   *(Image.fromarray(np.float32(picture(i)[:48, :64, 0])).save(r / f'images/{i}.tif')
                     for i in range(4))],
        AB, 'a b', (3, 1), 'cannot be read: the file cannot be decoded: OpenCV does not read TIFF files of 32-bit floa',
    ),
    'Cell Tracking Challenge': (
        lambda r: [pairs(r, f'0{i}/t{{}}.tif', f'0{i}_GT/SEG/man_seg{{}}.tif', start=3 * i) for i in (1, 2)],
        AB, 'a b', (6, 2),
    ),
    'any two folders': (lambda r: pairs(r, 'frames/{}.jpg', 'x/{}.png'), AB, 'a b', (3, 1)),
    'other first words': (lambda r: pairs(r, 'i/img_{}.jpg', 'm/mask_{}.png'), AB, 'a b', (3, 1)),
    'leading zeros': (lambda r: pairs(r, 'a/{:03}.jpg', 'b/{}.png'), AB, 'a b', (3, 1)),
    'in one folder': (lambda r: pairs(r, '{}.jpg', '{}_Mask.PNG'), AB, 'a b', (3, 1)),
    'a mask per part, one chosen': (
        lambda r: masks(r, 'portraits/{}.jpg', 'parts/0000{}_skin.png', 'parts/0000{}_nose.png'),
        {'map_suffix': '_skin.png', **AB}, 'a b', (3, 1),
    ),
    'maps that number objects, as classes': (
        numbered_objects, {'classes': ['a', 'b', 'c', 'd', 'e'], 'task': 'segments'}, 'a b c d e', (5, 1),
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
    'a folder in a folder': (lambda r: class_folders(r, 'train/train', 'val/val'), {}, 'ant bee', (10, 10)),
    'classes with images/ inside': (
        lambda r: class_folders(r, names=('ant/images', 'bee/images')), {}, 'ant bee', (8, 2),
    ),
    'strays left out': (
        both(class_folders, lambda r: photos(r, 'cover{}.jpg', count=1)), {'skip_stray': True}, 'ant bee', (8, 2),
    ),
    'validation without classes': (
        lambda r: [class_folders(r, 'train'), photos(r, 'val/images/{}.jpg')], {'val': '0.2'}, 'ant bee', (8, 2),
    ),
    'xBD': (
        splits_of('%s/images/x_{}.png', '%s/targets/x_{}_target.png', 'train', 'test', 'hold'), {'val': 'hold', **AB},
        'a b', (4, 4, 4),
    ),
    'MVTec AD, divided anew': (mvtec, {'val': '0.25', **AB}, 'a b', (3, 1)),
    'a second test set': (
        lambda r: [photos(r, f'{split}/fig/{{}}.jpg', f'{split}/kiwi/{{}}.jpg') for split in ('Training', 'Test')]
        + [photos(r, 'test-more/{}.jpg')],
        {}, 'fig kiwi', (6, 2, 8),
    ),
    'fastai': (
        with_table('fname,label,is_valid\n#a.jpg,pug,False\n#b.jpg,cat,False\n#c.jpg,pug,True\n#d.jpg,cat,True',
                   *(f'images/{{}}{k}.jpg' for k in 'abcd')),
        {}, 'cat pug', (8, 8),
    ),
    'a table that repeats the folders': (
        with_table('image_id,label,age\n#a.jpg,blast,4\n#b.jpg,normal,5', 'train_images/blast/{}a.jpg',
                   'train_images/normal/{}b.jpg', 'test_images/{}c.jpg'),
        {}, 'blast normal', (6, 2),
    ),
    'a table about the test set': (
        with_table('file,species\n#c.png,x', 'train/grass/{}a.png', 'train/maize/{}b.png', 'test/{}c.png'),
        {}, 'grass maize', (6, 2),
    ),
    'GTSRB, a table about the test set': (
        with_table('Width;Roi.X1;Roi.Y1;ClassId;Path\n64;5;5;#;Test/0#.png', 'Train/0/a{}.png', 'Train/1/b{}.png',
                   'Test/0{}.png', file='Test.csv'),
        {}, '0 1', (6, 2),
    ),
    'ISIC, with a table of ages': (
        both(with_table('image,MEL,NV\na#,1.0,0.0\nb#,0.0,1.0', 'x/a{}.jpg', 'x/b{}.jpg'),
             with_table('image,age,sex\na#,55.0,male\nb#,40.0,female', file='metadata.csv')),
        {}, 'MEL NV', (6, 2),
    ),
    'names of Darknet': (
        lambda r: [[photos(r, f'{i}.jpg', count=1), texts(r, {f'{i}.txt': BOX})] for i in range(4)]
        + [texts(r, {'_darknet.labels': 'fork\nspoon\n'})],
        {}, 'fork spoon', (3, 1),
    ),
    'a class per image in the table for validation': (
        both(with_table('image,class\na#.jpg,ant\nb#.jpg,bee', 'a{}.jpg', 'b{}.jpg', 'c{}.jpg'),
             lambda r: texts(r, {'val.csv': 'image,class\nc0.jpg,ant\nc1.jpg,bee\n'})),
        {}, 'ant bee', (8, 2),
    ),
    'splits in JSON beside VOC': (
        lambda r: [voc(r, sets=False), dump(r / 'splits.json', {'train': ['0.xml', '3.xml', '4'], 'test': ['1.xml']})],
        {}, 'fork spoon', (2, 1, 1),
    ),
    'trainSplit and valSplitMask': (
        lambda r: [pairs(r, 'trainSplit/{}.jpg', 'trainSplitMask/{}.png'),
                   pairs(r, 'valSplit/{}.jpg', 'valSplitMask/{}.png', count=2)],
        AB, 'a b', (4, 2),
    ),
    'boxes of zeros': (
        with_table('path,xmin,ymin,xmax,ymax,label\na#.jpg,4,6,20,30,Tree\nb#.jpg,0,0,0,0,Tree', 'a{}.jpg', 'b{}.jpg'),
        {}, 'Tree', (3, 1),  # images with objects
    ),
    'boxes of TensorFlow': (with_table(BOXES, '{}.jpg', file='labels.csv'), {}, 'fork spoon', (3, 1)),
    'boxes of Open Images, in fractions': (
        with_table('ImageID,Source,LabelName,XMin,XMax,YMin,YMax\nb#a,x,/m/01,0.1,0.6,0.2,0.7', 'train/b{}a.jpg',
                   file='boxes.csv'),
        {}, '/m/01', (3, 1),
    ),
    'a table beside XML files': (both(voc, with_table(BOXES, file='train_labels.csv')), {}, 'fork spoon', (3, 2)),
    'a class per image': (with_table('id,breed\na#,pug\nb#,husky', 'train/a{}.jpg', 'train/b{}.jpg'), {},
                          'husky pug', (6, 2)),
    'a column of 0 and 1 per class': (
        with_table('image_id,healthy,rust\na#.jpg,1,0\nb#.jpg,0,1', 'images/a{}.jpg', 'images/b{}.jpg'), {},
        'healthy rust', (6, 2),
    ),
    'a table with splits': (
        with_table('filepaths,labels,data set\nx/a#.jpg,ARA,train\nx/b#.jpg,KIWI,train\nx/c#.jpg,ARA,valid',
                   'x/a{}.jpg', 'x/b{}.jpg', 'x/c{}.jpg'),
        {}, 'ARA KIWI', (8, 4),
    ),
    'frames with the numbers of folders': (
        lambda r: [pairs(r, f'images/{i}/{{}}.jpg', f'masks/{i}/{{}}.png') for i in range(4)], AB, 'a b', (12, 4),
    ),
    'lists of images and label maps': (
        lambda r: [pairs(r, 'i/{}.jpg', 'l/{}.png', count=6), photos(r, 'l/{}_cutout.png', count=6)]
        + [lines(r, f'{name}.txt', 'i/{0}.jpg l/{0}.png', numbers=range(*part))
           for name, part in {'trainval': (0, 5), 'train': (0, 4), 'val': (4, 6)}.items()],
        AB, 'a b', (4, 2),
    ),
    'a folder per label map': (lambda r: pairs(r, 'images/{}.jpg', 'masks/{0}/{0}.png', count=5), AB, 'a b', (4, 1)),
    'JSON lines': (
        with_table('\n{"file_name": "a#.jpg", "label": 0}\n{"file_name": "b#.jpg", "label": 1}', 'x/a{}.jpg',
                   'x/b{}.jpg', file='x/metadata.jsonl'),
        {}, '0 1', (6, 2),
    ),
    'a table that pairs images with label maps': (
        lambda r: pairs_in_a_table(r, 4), AB, 'a b', (3, 1), '4 pairs such as x/a0.jpg with y/m3.png',
    ),
    'a table that pairs few of the images': (
        lambda r: pairs_in_a_table(r, 2), AB, 'a b', (3, 1), '4 pairs such as x/a0.jpg with y/m0.png',
    ),
    'rotated boxes': (
        lambda r: [photos(r, 'images/train/{}.jpg'),
                   texts(r, dict.fromkeys((f'labels/train/{i}.txt' for i in range(4)), SHIP))],
        {'classes': ['ship']}, 'ship', (3, 1), 'all polygons have four corners',
    ),
    'classes that differ only in case': (
        lambda r: class_folders(r, names=('Basil', 'Mint', 'mint')), {}, 'Basil Mint mint', (12, 3),
        'warning: classes that differ only in upper and lower case: Mint, mint;',
    ),
    'many classes that are numbers': (
        with_table('image,age' + ''.join(f'\n{c}#.jpg,{i}' for c, i in zip('abcdef', AGES, strict=True)),
                   *(f'{c}{{}}.jpg' for c in 'abcdef')),
        {}, '19 27 31 45 52 9', (18, 6), 'warning: the classes are numbers (9, 19, 27, 31, 45, 52)',
    ),
    'the end of label maps, which is in another end': (
        two_ends, {'map_suffix': '.png', **AB}, 'a b', (3, 1), '0.jpg with label/0.png',
    ),
    'the longer end of label maps': (
        two_ends, {'map_suffix': '_pseudo.png', 'classes': ['#000000=a', '#004080=b']}, 'a b', (3, 1),
        '0.jpg with label/0_pseudo.png',
    ),
    'label maps in folders of classes': (
        lambda r: pairs_of_classes(r, 'images/{}.png', 'masks/{}.png'), AB, 'a b', (6, 2),
    ),
    'images that no part uses': (
        both(splits_of('images/%s/{}.jpg', 'annotations/%s/{}.png', 'training', 'validation'),
             lambda r: photos(r, 'images/test/{}.jpg', count=1)),
        AB, 'a b', (4, 4), 'not used: 1 images (1 in ', '/data/images/test)',
    ),
    'missing images left out': (
        missing, {'skip_missing': True}, 'fork spoon', (3, 1), 'left out 1 images of ', 'are missing (first: 3.jpg)',
    ),
    'XML files whose images have copies, left out': (
        with_copies, {'task': 'instances', 'skip_missing': True}, 'fork spoon', (2, 1),
        'left out 2 XML files of Pascal VOC whose images have copies',
    ),
    'XML files with a wrong size': (lambda r: resized_voc(r, 10), {}, 'fork spoon', (3, 2)),  # its boxes are not inside
    'a fraction in place of the validation of YOLO': (
        yolo, {'val': '0.4'}, 'fork spoon', (2, 2), 'not used: 5 images of val, which --val replaces',
    ),
    'a fraction in place of the validation of COCO': (
        lambda r: [coco_with(r, lambda c: None, 'train.json'), dump(r / 'val.json', annotate(['0.jpg']))],
        {'val': '0.4'}, 'fork spoon', (3, 2),
        'val.json, which --val replaces', 'split by image: 3 for train and 2 for val',
    ),
    'a split of YOLO without any label': (
        lambda r: [yolo(r), shutil.rmtree(r / 'valid/labels')], {}, 'fork spoon', (3, 1), '6 images are background',
        'val: 5 images without annotations',
    ),
    'names in UTF-16': (lambda r: encoded(r, 'Straße\nBäume\n', 'utf-16'), {}, 'Straße Bäume', (3, 1)),
    'names in another encoding, and an option': (
        lambda r: encoded(r, '機車\r\n汽車\r\n', 'cp950'), {'classes': ['機車', '汽車']}, '機車 汽車', (3, 1),
    ),
}  # fmt: skip
MIT = '<annotation><object><name>ant</name><polygon><pt><x>1</x><y>2</y></pt></polygon></object></annotation>'
SMOOTHED = cv2.resize(np.uint8([[[0] * 3, [64, 128, 255]]]), (64, 48), interpolation=cv2.INTER_CUBIC)
NUMBERS = '\n'.join(' '.join('01'[x > 30] for x in range(64)) for _ in range(48))
ROTATED = '<annotation><object><name>ship</name><robndbox><x>1</x></robndbox></object></annotation>'
ACTION = (
    '<annotation><object><name>person</name><action>{}</action>' + XML[XML.index('<bndbox>') : XML.index('</object>')]
)
ACTION += '</object></annotation>'
HRSC = '<HRSC_Image><Img_ID>{0}</Img_ID><HRSC_Objects><mbox_cx>4.5</mbox_cx></HRSC_Objects></HRSC_Image>'
# Layout -> how to make it, options, what the message has.
REFUSED = {
    'Pascal VOC 2012': (voc_2012, {}, '--task instances or --task segments'),
    'Oxford pets': (oxford_pets, {}, '--task instances or --task segments'),
    'ImageNet': (imagenet, {}, '6 XML files(?s:.*)--task instances or --task classes'),
    'LEVIR': (
        lambda r: two_times(r, 'train/A', 'train/B'), AB,
        r'images in several folders: train/A/, train/B/(?s:.*)--images \S*/train/A; change detection.* not supported',
    ),
    'two cameras, with reports': (
        lambda r: [two_times(r, 'color (day)', 'ir'), texts(r, {f'reports/{i}.txt': 'fog' for i in range(4)})], AB,
        r"Choose one: --images '[^']*/color \(day\)'",
    ),
    'a mask per part': (
        lambda r: masks(r, 'portraits/{}.jpg', 'parts/0000{}_skin.png', 'parts/0000{}_nose.png'), {},
        r'the ends _nose.png, _skin.png\n Choose one: --map-suffix END; masks of several .* label map.$',
    ),
    'a mask per class': (
        lambda r: masks(r, 'images/{}.jpg', 'heart/{}.png', 'lung/{}.png', 'liver/{}.png'), {},
        r'several folders: heart/, liver/, lung/(?s:.*)--maps \S*/heart; masks of several',
    ),
    'a mask per object': (
        lambda r: masks(r, '{0}/images/{0}.jpg', '{0}/masks/a{0}b.png', '{0}/masks/c{0}d.png'), {},
        'without an image of their name, such as 0/masks/a0b.png(?s:.*)mask for each object',
    ),
    'a folder per image, with a mask per object': (
        lambda r: masks(r, 'input/IMG_{}.jpg', 'output/IMG_{}/0.png', 'output/IMG_{}/1.png'), {},
        r'a folder for each photograph, .*: output/IMG_0/ for input/IMG_0.jpg\n(.*\n)* Join the masks .* COCO format.$',
    ),
    'masks in folders of numbered images': (
        lambda r: masks(r, 'input/{}.jpg', *(f'output/{{}}/{j}.png' for j in range(3))), {},
        r'a folder for each photograph, with a mask per object: output/0/ for input/0.jpg(?s:.*)Join the masks',
    ),
    'a second mask of an image': (
        lambda r: [pairs(r, '{}.jpg', '{}_mask.png'), shutil.copy(r / '0_mask.png', r / '0_mask_1.png')],
        AB, r'more than one label map, such as 0_mask_1.png(?s:.*)--map-suffix',
    ),
    'masks with other names': (
        lambda r: masks(r, 'portraits/{}.jpg', 'parts/abc{}def.png'), {},
        r'parts has masks or label maps, portraits has photographs; a mask needs the name of its image',
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
    'label maps in JPEG format': (
        lambda r: pairs(r, 'images/{}.png', 'masks/{}.jpg', values=((10, 200, 30), (200, 0, 90), (0, 0, 0))),
        {'classes': ['a', 'b', 'c']}, r'\d+.\d% of the pixels, occur only between others: JPG files do not keep values',
    ),
    'colors that were smoothed': (
        lambda r: [pairs(r, 'x/{}.jpg', 'masks/{}.png')] + [write(r / f'masks/{i}.png', SMOOTHED) for i in range(4)],
        {'classes': ['#000000=a', '#ff8040=b']}, r'occur only between others: soft borders(?s:.*)nearest neighbor',
    ),
    'masks of 255 and of 1': (
        lambda r: [pairs(r, 'x/{}.jpg', 'y/{}.png'), pairs(r, 'x/{}.jpg', 'y/{}.png', start=4, values=(0, 255))], AB,
        '4 label maps have the values 0 and 1, 4 others 0 and 255(?s:.*)255=NAME; if not: --ignore 255',
    ),
    'folders in folders of classes, one of them tea': (
        lambda r: [photos(r, f'{name}/{inner}/{{}}.jpg') for name in ('tea', 'coffee') for inner in 'xy'], {},
        r'coffee, tea in the folder have the same folders: x, y \(splits are called(?s:.*)--task classes',
    ),
    'tags': (
        with_table('image,tags\na#.jpg,clear primary\nb#.jpg,clear primary road\nc#.jpg,cloudy', '{}.jpg', 'a{}.jpg',
                   'b{}.jpg', 'c{}.jpg'), {},
        'clear primary and clear primary road may be several classes(?s:.*)--task classes',
    ),
    'a JSON file of splits of other images': (
        lambda r: [voc(r, sets=False), dump(r / 'splits.json', {'train': ['0', {'a': 7}], 'test': ['']})], {},
        'splits.json seems to say which images are for training, but names .*7.*(?s:.*)--val 0.2',
    ),
    'centers of boxes': (
        with_table('image,left,top,width,height,class\na#.jpg,50,30,28,20,ant', 'a{}.jpg'), {},
        r'4 of 4 boxes of train.csv are not inside .* \[50.0, 30.0, 78.0, 50.0\].* all are if left, top is the center',
    ),
    'XML of LabelMe': (
        lambda r: [[photos(r, f'{i}.jpg', count=1), texts(r, {f'{i}.xml': MIT})] for i in range(3)], {},
        'XML files with polygons, of LabelMe(?s:.*)Export the objects in COCO format',
    ),
    'colors with two names': (
        lambda r: [[pairs(r, f'{run}/rgb_{{}}.png', f'{run}/seg_{{}}.png'),
                    dump(r / f'{run}/names.json', {'(9, 9, 9, 255)': {'class': run}})] for run in 'ab'],
        {'task': 'segments'}, r'\(9, 9, 9, 255\) is a in a/names.json, and b in b/names.json(?s:.*)one number for each',
    ),
    'pairs of two cameras': (
        lambda r: [photo(r / f'{top}/DSC{i}.jpg', next(SEEDS)) for top in ('visible', 'infrared')
                   for i in range(9, 99, 9)],
        {}, r'infrared and visible in the folder have the same names of images, such as DSC18.jpg(?s:.*)--task classes',
    ),
    'folders of days': (
        lambda r: photos(r, '2024-05-01/a{}.jpg', '2024-05-03 field/b{}.jpg'), {}, 'are called like parts of the data',
    ),
    'two experts': (
        lambda r: photos(r, *(f'rays/{e}/{e}/{name}/{{}}.jpg' for e in ('I', 'II') for name in 'ab')), {},
        r'I, II in rays have the same folders: a, b',
    ),
    'classes in a JSON file beside folders': (
        lambda r: [photos(r, '00/{}.jpg', '01/{}.jpg'),
                   dump(r / 'x.json', {f'{top}/{i}.jpg': ('cat', 'dog')[i % 2] for top in ('00', '01')
                                      for i in range(4)})],
        {}, r'a file that names images, in a form that is not read \(x.json(?s:.*)image,class',
    ),
    'edges beside photographs': (
        lambda r: photos(r, *(f'{top}/{name}/{{}}.jpg' for top in ('train', 'train_edges', 'val') for name in 'ab')),
        {},
        r'train/ and train_edges/ have images of the same names\n Move one of these folders away',
    ),
    'a text for each video': (
        lambda r: [photos(r, 'frames/v/{}.jpg', 'frames/w/{}.jpg'),
                   texts(r, {'boxes/v.txt': '0 1 5', 'boxes/w.txt': '0 1 6'})],
        {}, r'files called like the folders may be about the images in them, such as boxes/v.txt(?s:.*)--task classes',
    ),
    'a class in a list': (
        with_table("image,labels\na#.jpg,['N']\nb#.jpg,['M']", 'a{}.jpg', 'b{}.jpg'), {},
        r"lists in its cells, such as \['N'\]\n Write one class in each cell: image,class",
    ),
    'names that several folders have': (
        with_table('File,Place,Kind\n0.jpg,A,fox\n1.jpg,A,owl\n0.jpg,B,fox\n1.jpg,B,owl', 'A/{}.jpg', 'B/{}.jpg'), {},
        r'names 0.jpg, and several folders have an image of this name\n Write the path of each image',
    ),
    'names of videos for images': (
        with_table('file,label\na#.mp4,x\nb#.mp4,y', 'a{}.jpg', 'b{}.jpg'), {},
        r'names a0.mp4, and the image is called a0.jpg\n Write the names of the images in the column file',
    ),
    'a table of a few images': (
        with_table(
            'image,xmin,ymin,xmax,ymax,class\na#.jpg,1,2,13,14,ant',
            *(f'{c}{{}}.jpg' for c in 'abcde'), file='boxes.csv',
        ), {},
        r'boxes.csv names 4 of 20 images\n To learn these alone: new_config.py \S*/boxes.csv',
    ),
    'numbers of tracked objects': (
        lambda r: yolo(r, line='1 0.5 0.25 0.125 0.5 7\n'), {},
        'line 1 has 5 numbers after the class, of which the last is whole: the number of a tracked object',
    ),
    'labels of images that are not there': (
        lambda r: [yolo(r, line=''), texts(r, {'train/labels/x.txt': BOX})], {},
        r'no objects of a class \(10 images are read; .*not used: 1 files of labels without an image \(first: ',
    ),
    'objects without mask and box': (
        lambda r: coco_with(r, lambda c: c['annotations'][0].update(segmentation=[], area=0, bbox=[0, 0, 0, 0])), {},
        '1 of 10 objects are empty, with neither mask nor box. --fix removes',
    ),
    'palettes that differ': (
        lambda r: [photos(r, 'x/{}.jpg')] + [paint(r / f'masks/{i}.png', [(0, 9, 0), (0, 0, 0)][:: i % 2 * 2 - 1])
                                             for i in range(4)],
        {'classes': ['a', 'b']}, r'palettes of the label maps differ: . is #000(?s:.*)RGB files',
    ),
    'TIFF files in which 0 is white': (
        lambda r: [photos(r, 'x/{}.jpg')] + [white(r / f'masks/{i}.tif') for i in range(4)],
        {'classes': ['a', 'b']}, r'masks/0.tif is a TIFF file in which 0 is white',
    ),
    'classes in one channel': (
        lambda r: pairs(r, 'x/{}.jpg', 'y/{}.png', values=tuple((i % 2 * 9, i, i) for i in range(9))), {},
        r'If the red channel has the classes \(0, 9\), save it as a gray PNG file; else: Name them',
    ),
    'splits with Chinese names': (
        lambda r: photos(r, *(f'{top}/{name}/{{}}.jpg' for top in ('训练集', '测试集') for name in 'ab')), {},
        r'测试集, 训练集 in the folder have the same folders: a, b \(splits are called train, val\)',
    ),
    'a split of an unknown name': (
        lambda r: photos(r, *(f'{top}/{name}/{{}}.jpg' for top in ('train', 'validate') for name in 'ab')), {},
        r'validate/ has folders of the same classes as train/\n Name it val or test',
    ),
    'one image of each class': (
        lambda r: photos(r, 'p{}/0.jpg'), {}, r'Each class has one image: p0, p1, p2, p3. None is left for validation',
    ),
    'labels of two people for an image': (
        lambda r: [photos(r, 'photos/{}.jpg'), *(texts(r, {f'{top}/{i}.txt': BOX for i in range(4)}) for top in 'ab')],
        {'classes': ['a', 'b']}, r'an image has two files of labels, 4 times: photos/0.jpg with a/0.txt and b/0.txt',
    ),
    'labels for two images': (
        lambda r: [yolo(r), photo(r / 'train/images/0.png', 9)], {},
        'a file of labels has two images, 1 times: train/labels/0.txt with train/images/0.jpg and train/images/0.png',
    ),
    'labels of other names': (
        lambda r: [photos(r, 'my photo {}.jpg'), texts(r, {f'my_photo_{i}.txt': BOX for i in range(4)})], {},
        '4 files of labels of YOLO such as my_photo_0.txt, but no image has the name of one\n Give each file the name',
    ),
    'labels of two folders of images': (
        lambda r: [photos(r, 'a/{}.jpg', 'drawn/{}.jpg'), texts(r, {f'labels/{i}.txt': BOX for i in range(4)})], {},
        '4 files of labels of YOLO such as labels/0.txt with a/0.jpg and drawn/0.jpg (?s:.*)Move the other images away',
    ),
    'a folder per sample, without words of masks': (
        lambda r: pairs(r, 's{}/phase.png', 's{}/feature_1.png'), {},
        r's0/feature_1.png looks like a label map, s0/phase.png like a photograph; of both write a list(?s:.*)'
        'all folders in the folder have the same names of images: feature_1.png, phase.png',
    ),
    'boxes with an angle': (
        lambda r: coco_with(r, lambda content: [i.update(bbox=[3, 3, 4, 4, 45.0], segmentation=[])
                                                for i in content['annotations']]),
        {}, r'bbox is \[3, 3, 4, 4, 45.0\](?s:.*)Of a rotated box, with an angle(?s:.*) Correct the file\.$',
    ),
    'a spreadsheet': (
        lambda r: [photos(r, '{}.jpg'), texts(r, {'boxes.xlsx': 'PK'})], {}, 'spreadsheets, such as boxes.xlsx\n Save',
    ),
    'images in an archive': (
        lambda r: [dump(r / 'a.json', annotate(['0.jpg'])), texts(r, {'images.zip': 'PK'})], {},
        'None of the 1 images .* Unpack images.zip, if it has files of the data',
    ),
    'names with a prefix': (
        lambda r: [photos(r, 'IMG {}.jpg'), dump(r / 'a.json', annotate(['0a1b-IMG%200.jpg']))], {},
        r'None of the 1 images .*; or correct the names: IMG \d.jpg is here.',
    ),
    'flags of labelme': (
        lambda r: [[photos(r, f'{i}.jpg', count=1), dump(r / f'{i}.json', {'flags': {'ok': True}, 'shapes': []})]
                   for i in range(3)],
        {}, 'with flags of the images and without shapes, such as 0.json(?s:.*)table',
    ),
    'label maps as text, in a place of YOLO': (
        lambda r: [photos(r, 'images/{}.jpg'), texts(r, {f'labels/{i}.txt': NUMBERS for i in range(4)})], {},
        r'labels/0.txt has 48 lines of 64 numbers, as many as the pixels of images/0.jpg(?s:.*)np.loadtxt',
    ),
    'label maps as text': (
        lambda r: [photos(r, 'img/{}.jpg'), texts(r, {f'label/{i}.csv': NUMBERS.replace(' ', ',') for i in range(4)})],
        {}, r'label/0.csv has 48 lines of 64 numbers, as many as the pixels of img/0.jpg(?s:.*)np.loadtxt',
    ),
    'folds with class folders': (
        lambda r: photos(r, *(f'fold_{i}/{split}/{name}/{{}}.jpg' for i in (1, 2) for split in ('train', 'val')
                              for name in 'ab')),
        {}, r'called like parts of the data(?s:.*) These are data sets of their own; name one: .*/fold_1$',
    ),
    'classes in the names of the images': (
        lambda r: photos(r, 'cat.{}.jpg', 'dog.{}.jpg'), {},
        r'the names of the images begin with cat, dog. If these words are the classes, .* a folder for each',
    ),
    'boxes in a text': (
        with_table('image,prefix,suffix\na#.jpg,detect ant,<loc0001><loc0002><loc0100><loc0200> ant', 'a{}.jpg'), {},
        r"prefix \('detect ant'\), suffix \('<loc0001>.*'\)\n Write a row for each box",
    ),
    'keypoints': (
        with_table('image,nose\na#.jpg,1.5#', 'a{}.jpg'), {}, 'Keypoints are not supported',
    ),
    'MVTec AD': (mvtec, AB, 'Only images for test have annotations, such as test/hole/000.png.* --val 0.2'),
    'DAVIS 2017': (
        numbered_objects, {}, r'seem to number objects, .* is 2 to 4\n For objects, export .*NAME …$',
    ),
    'iNaturalist': (
        labels_alone, {}, r'train2019.json has a class for each image .*\n docs/own_data.md, "Tables", .* of it.$',
    ),
    'DIOR': (
        lambda r: [photos(r, 'JPEGImages/{}.jpg'), voc_files(r, 'Annotations/Horizontal Bounding Boxes/{}'),
                   texts(r, {f'Annotations/Oriented Bounding Boxes/{i}.xml': ROTATED for i in range(4)})],
        {}, r'Oriented Bounding Boxes has oriented boxes \(robndbox\).*\n If other files .* away.$',
    ),
    'HRSC': (
        lambda r: [photos(r, 'AllImages/{}.bmp'), texts(r, {f'xml/{i}.xml': HRSC.format(i) for i in range(4)})],
        {}, r'0.xml has the root HRSC_Image, and numbers in .*mbox_cx(?s:.*)Write a table',
    ),
    'YOLO for Keras': (
        lambda r: [photos(r, 'images/im{}.jpg'), lines(r, 'train.txt', 'images/im{}.jpg 1,2,30,40,0 4,5,6,7,1')],
        {}, 'train.txt has lines of the path of an image and groups of 5 numbers(?s:.*)Write a table',
    ),
    'WiderFace': (
        lambda r: [photos(r, 'WIDER_train/images/0--Parade/0_{}.jpg', 'WIDER_train/images/1--Shout/1_{}.jpg'),
                   lines(r, 'wider_face_train_bbx_gt.txt', *(f'{c}_{{}}.jpg\n1\n44 11 20 30 0 0 0 0 0 0'
                                                             for c in ('0--Parade/0', '1--Shout/1')))],
        {}, r'a file that names images, .*wider_face_train_bbx_gt.txt(?s:.*)per class \(0--Parade, 1--Shout\): --task',
    ),
    'ICDAR 2015': (
        lambda r: [photos(r, 'images/img_{}.jpg'),
                   texts(r, {f'gt/gt_img_{i}.txt': '37,39,74,38,74,40,37,40,Exit' for i in range(4)})],
        {}, '4 files with the names of images, .*gt/gt_img_0.txt has lines of 8 numbers and 1 words',
    ),
    'BDD100K': (
        lambda r: [photos(r, 'images/b{}a.jpg'),
                   dump(r / 'labels.json', [dict(name=f'b{i}a.jpg', labels=[dict(box2d=[1, 2])]) for i in range(4)])],
        {}, 'a file that names images, in a form that is not read .labels.json',
    ),
    'SKU-110K': (
        lambda r: [photos(r, 'images/train_{}.jpg'), lines(r, 'annotations/train.csv', 'train_{}.jpg,1,2,30,40,ox')],
        {}, r'annotations/train.csv is a table of images without a header(?s:.*)first line has to name the columns',
    ),
    'boxes outside': (with_table(BOXES.replace(',30', ',90'), '{}.jpg'), {}, '4 of 8 boxes .*not inside .*90.*64×48'),
    'VIA in CSV': (
        with_table('filename,file_attributes,region_id,region_shape_attributes,region_attributes\na#.jpg,{},0,'
                   '"{""name"":""rect"",""x"":2,""y"":3,""width"":14,""height"":15}",{}', 'a{}.jpg'), {},
        r'column region_shape_attributes .* lists in its cells, such as {.*\n Write a row for each box: .* COCO',
    ),
    'boxes in lists': (
        with_table('filename,rois,classes\n#.jpg,"[[3, 4, 9, 9], [1, 2, 8, 8]]","[1, 2]"', '{}.jpg'), {},
        r'column rois of train.csv has lists in its cells, such as \[\[3, 4, 9, 9\], \[1, 2, 8, 8\]\]\n Write a row',
    ),
    'pycococreator, a mask for each object': (
        lambda r: [pairs(r, 'photos/{}.jpg', 'notes/{}_fig_0.png'), pairs(r, 'photos/{}.jpg', 'notes/{}_fig_1.png'),
                   pairs(r, 'photos/{}.jpg', 'notes/{}_kiwi_0.png', count=2)],
        {}, r'a mask for each object, with ends such as _fig_0.png, _fig_1.png(?s:(?!.*--map-suffix).*) in COCO format',
    ),
    'Fish4Knowledge, as classes': (
        lambda r: [pairs(r, f'fish_image/fish_{i}/fish_{{}}.png', f'mask_image/mask_{i}/mask_{{}}.png', start=4 * i)
                   for i in (1, 2)],
        {'task': 'classes'},
        r'mask_image has the label maps of the images in fish_image\n .*--task segments, or .*/fish_image',
    ),
    'pages of a TIFF file': (
        lambda r: [pairs(r, 'images/{}.tif', 'masks/{}.tif'),
                   *(Image.fromarray(picture(i)).save(r / f'images/{i}.tif', save_all=True,
                                                      append_images=[Image.fromarray(picture(9))]) for i in range(4))],
        AB, r'images/\d.tif has several pages, of which one would be read\. Save each page as a file',
    ),
    'folds of a cross-validation': (
        lambda r: [(photo(r / f'f{k}/{s}/images/{i}.jpg', i),
                    texts(r, {f'f{k}/{s}/labels/{i}.txt': BOX,
                              f'f{k}/f.yaml': 'train: train/images\nval: val/images\nnames: [fork, spoon]\n'}))
                   for k in (0, 1) for i in range(4) for s in (('train', 'val')[i % 2 == k],)],
        {}, r'4 images such as f./val/images/..jpg are for training in one of f0/f.yaml, f1/f.yaml, .*\n Name one: ',
    ),
    'AI-Mask of labelme': (
        lambda r: [photos(r, '{}.jpg'), [dump(r / f'{i}.json', dict(imagePath=f'{i}.jpg', shapes=[
            dict(label='a', points=[[1, 1], [9, 9]], shape_type='mask', mask='iVBORw0KGgo=')])) for i in range(4)]],
        {}, r'shapes of the type mask \(AI-Mask\), which are not read(?s:.*)\n Convert them to polygons',
    ),
    'boxes in a list of another suffix': (
        lambda r: [photos(r, 'positives/{}.jpg', 'negatives/n{}.jpg'),
                   lines(r, 'info.dat', 'positives/{}.jpg 1 10 10 40 40')],
        {}, r'a file that names images, in a form that is not read \(info.dat has lines of 1 name(?s:.*)Write a table',
    ),
    'a column that may be the split': (
        with_table('fname,label,valid\n#a.jpg,pug,0\n#b.jpg,cat,0\n#c.jpg,pug,1\n#d.jpg,cat,0',
                   *(f'{{}}{k}.jpg' for k in 'abcd')),
        {}, r'column valid of train.csv may say which images are for validation, but has the values 0, 1\n Write train',
    ),
    'boxes with an angle in XML files': (
        lambda r: [voc(r), *(path.write_text(path.read_text().replace('</bndbox>', '<angle>0.5</angle></bndbox>'))
                             for path in r.rglob('*.xml'))],
        {}, r'object 1 has the angle 0.5 \(angle\), which is not read\.(?s:.*)\n Export upright boxes, or polygons',
    ),
    'names with attributes in XML files': (
        lambda r: [voc(r), *(path.write_text(path.read_text().replace('fork', 'fork;color:red'))
                             for path in r.rglob('*.xml'))],
        {}, r'names of classes such as fork;color:red have attributes; without them: fork(?s:.*)--task instances',
    ),
    'MATLAB': (
        lambda r: pairs(r, 'images/img_{}.jpg', 'PixelLabelData/Label_{}.png'), AB,
        r'MATLAB numbers the label maps in PixelLabelData in the order of its images(?s:.*)\n Write a list, pairs.csv',
    ),
    'numbers that are left on both sides': (
        lambda r: [pairs(r, 'images/img_{}.jpg', 'masks/mask_{}.png', count=6),
                   (r / 'images/img_5.jpg').unlink(), (r / 'masks/mask_4.png').unlink()],
        AB, 'masks or label maps without an image of their name, such as masks/mask_0.png',
    ),
    'COCO with another key': (
        lambda r: coco_with(r, lambda c: [image.update(fileName=image.pop('file_name')) for image in c['images']]), {},
        r'5 of the 5 images in .*a.json have no file_name, but the keys id, width, height, fileName\. .* rename',
    ),
    'COCO with corners': (
        lambda r: coco_with(r, lambda c: [item.update(bbox=[30, 20, 50, 40]) for item in c['annotations']]), {},
        r'10 of 10 boxes of .*a.json extend beyond their images \(first: bbox \[30, 20, 50, 40\] of 0.jpg with 64×48',
    ),
    'numbers that may be boxes': (
        with_table('image,class,a,b,c,d\na#.jpg,go,1,2,30,40\nb#.jpg,stop,5,6,7,8', 'a{}.jpg', 'b{}.jpg'),
        {}, 'columns of numbers that may be boxes: a, b, c, d',
    ),
    'objects in JSON lines': (
        with_table('\n{"file_name": "a#.jpg", "objects": {"bbox": [[1, 2, 3, 4]]}}', 'a{}.jpg', file='a.jsonl'), {},
        'has no column of a class',
    ),
    'a number without a name': (
        with_table('image,label\na#.jpg,1\nb#.jpg,2', 'a{}.jpg', 'b{}.jpg'), AB, 'the class 2(?s:.*)NUMBER=NAME',
    ),
    'a table of images and label maps': (
        with_table('image,lane,way\nx/a#.jpg,y/m#.png,z/n#.png', 'x/a{}.jpg', 'y/m{}.png', 'z/n{}.png'), {},
        'several files of each image: image, lane, way(?s:.*)keep two columns',
    ),
    'labelme_json_to_dataset': (
        lambda r: [[pairs(r, f'{i}_json/img.png', f'{i}_json/label.png', count=1),
                    texts(r, {f'{i}_json/label_names.txt': '_background_\nant\n'})] for i in range(3)], {},
        'labelme_json_to_dataset(?s:.*)own JSON',
    ),
    'names beside a YAML file': (
        lambda r: yolo(r), AB, '--classes does not apply(?s:.*)Omit --classes',
    ),
    'several rows per image': (
        with_table('image,label,box\na#.jpg,x,1:2:3:4\na#.jpg,x,5:6:3:4', 'a{}.jpg'), {},
        'several rows for an image, .*: a0.jpg,x,1:2:3:4 and a0.jpg,x,5:6:3:4',
    ),
    'ages': (with_table('image,age\na#.jpg,3#\nb#.jpg,4#', 'a{}.jpg', 'b{}.jpg'), {},
             'age .* 8 values in 8 rows(?s:.*)Numbers cannot be learned here, only classes'),
    'numbers with fractions': (
        with_table('image,grams\na#.jpg,193.0\nb#.jpg,87.5', 'a{}.jpg', 'b{}.jpg'), {},
        'cells such as (?s:.*)Numbers cannot be learned here, only classes',
    ),
    'ages of which most are rare': (
        with_table('image,age\na#.jpg,1#\nb#.jpg,20\nc#.jpg,21\nd#.jpg,22', *(f'{c}{{}}.jpg' for c in 'abcd')), {},
        'classes are numbers, 10, 11, 12, 13, 20, 21, 22, and most .* one or two images. Numbers cannot be learned',
    ),
    'several classes in a cell': (
        with_table('image,label\na#.jpg,x\nb#.jpg,y\nc#.jpg,x y', 'a{}.jpg', 'b{}.jpg', 'c{}.jpg'), {},
        r'such as x y: (?s:.*)\n Several classes per image are not supported',
    ),
    'a table that says something else than the folders': (
        with_table('image,label\nu#.jpg,x\nv#.jpg,x\nw#.jpg,y', 'p/u{}.jpg', 'q/v{}.jpg', 'q/w{}.jpg'), {},
        'several kinds of data',
    ),
    'KITTI': (
        lambda r: [photos(r, 'image_2/00{}.png'), texts(r, {f'calib/00{i}.txt': 'P0: 1 2' for i in range(4)}),
                   texts(r, {f'label_2/00{i}.txt': f'Car 0.0 0 -0.2 {"1.5 " * 10}1.5\n' for i in range(4)})],
        {}, 'labels of KITTI, such as label_2/000.txt',
    ),
    'LandCover.ai': (
        lambda r: [pairs(r, 'images/M-{}.tif', 'masks/M-{}.tif'), lines(r, 'train.txt', 'M-{}_0', 'M-{}_1'),
                   lines(r, 'val.txt', 'M-{}_2')],
        AB, r"train.txt seems to say .*, but its first line is no image here: 'M-0_0'(?s:.*)--val 0.2",
    ),
    'classes in groups': (
        lambda r: photos(r, 'animal/cat/{}.jpg', 'animal/dog/{}.jpg', 'vehicle/car/{}.jpg'), {},
        'animal in the folder have folders in them: animal/cat, animal/dog',
    ),
    'MOT17': (
        lambda r: [(photos(r, f'{s}/MOT17-{i}/img1/{{}}.jpg'), texts(r, {f'{s}/MOT17-{i}/gt/gt.txt': '1,1,912,4'}))
                   for s, i in (('train', 2), ('train', 4), ('val', 1))],
        {}, r'boxes of the frames of a sequence \(MOT\), such as train/MOT17-2/gt/gt.txt(?s:.*)Write a table',
    ),
    'Market-1501': (
        lambda r: [photos(r, 'bounding_box_train/0002_{}.jpg', 'bounding_box_test/0000_{}.jpg', 'query/0001_{}.jpg'),
                   texts(r, {f'gt_query/0001_{i}.mat': 'MATLAB \0\0' for i in range(4)})],
        {}, r'called like splits(?s:.*)4 files with the names of images, .*\(MATLAB files, such as',
    ),
    'Azure': (
        lambda r: coco_with(r, lambda c: [item.update(bbox=[0.1, 0.2, 0.3, 0.4]) for item in c['annotations']]), {},
        r'All 10 boxes of .* are between 0 and 1, .*: fractions of the image. COCO has pixels',
    ),
    'CVPPP': (
        lambda r: [numbered_objects(r), [(r / f'masks/{i}.png').rename(r / f'images/{i}_label.png') for i in range(6)],
                   [write(r / f'images/{i}_fg.png', np.full((48, 64), i % 2, np.uint8)) for i in range(6)]],
        {'map_suffix': '_label.png'}, r'clear:\n  [^\n]*0.jpg[^\n]*\n [^\n]* seem to number objects, [^\n]*\n For',
    ),
    'SYNTHIA': (
        lambda r: [photos(r, 'RGB/{}.png'), [(r / 'LABELS').mkdir()],
                   [write(r / f'LABELS/{i}.png', np.full((48, 64, 3), (0, i, 3), np.uint16)) for i in range(4)]],
        {'classes': ['void', 'sky']}, r'have 3 channels of 16 bits, with the values 3 to 3, \d to \d, 0 to 0',
    ),
    'names of values that do not occur': (
        lambda r: pairs(r, 'images/{}.jpg', 'masks/{}.png'), {'classes': ['7=a', '8=b']}, 'None of the classes occurs',
    ),
    'one class that occurs': (
        lambda r: pairs(r, 'images/{}.jpg', 'masks/{}.png', values=(0,)), AB,
        r'Of 2 classes only a occurs in the label maps, which have the values 0 \(100.00%\)',
    ),
    'one value, which is ignored': (
        lambda r: pairs(r, 'images/{}.jpg', 'masks/{}.png', values=(0,)), {'classes': ['a', 'b'], 'ignore': ['0']},
        'None of the classes occurs',
    ),
    'masks in the alpha channel of one color': (
        lambda r: in_alpha(r, photograph=False), AB,
        r'alpha channel of files such as \S*masks/0.png; their colors are all alike(?s:.*)as a gray PNG file',
    ),
    'masks in the alpha channel of photographs': (
        lambda r: in_alpha(r, photograph=True), {}, 'alpha channel .* their colors are those of photographs',
    ),
    'DeepFashion2': (
        lambda r: [photos(r, 'image/{}.jpg'), [dump(r / f'annos/{i}.json', {'item1': {'bounding_box': [1, 2, 3, 4]},
                                                                            'pair_id': i}) for i in range(4)]],
        {}, '4 files with the names of images, .*0.json has the keys item1, pair_id, bounding_box, and begins',
    ),
    'Stanford 40': (
        lambda r: [photos(r, 'JPEGImages/{}.jpg'),
                   texts(r, {f'XML/{i}.xml': ACTION.format(('running', 'cooking')[i % 2]) for i in range(4)})],
        {}, r'all objects are called person, .*<action> cooking, <action> running(?s:.*)--task instances',
    ),
    'xBD': (
        splits_of('%s/images/x_{}.png', '%s/targets/x_{}_target.png', 'train', 'test', 'hold'), AB,
        'hold/images/x_20.png belongs to no split, .* If it is for validation: --val .*data/hold',
    ),
    'parts of the data': (
        lambda r: photos(r, 'images_part_1/{}.jpg', 'images_part_2/{}.jpg'), {},
        'images_part_1, images_part_2 are called like parts of the data',
    ),
    'sharp and blurred': (
        lambda r: [write(r / f'{k}/{i}.png', picture(i)) for i in range(4) for k in ('sharp', 'blur')], {},
        r'blur/0.png looks like sharp/0.png(?s:.*)per class \(blur, sharp\): --task classes',
    ),
    'folders named like images': (
        lambda r: class_folders(r, names=('images', 'other')), {}, r'a folder is called images(?s:.*)--task classes',
    ),
    'splits beside other folders': (
        lambda r: class_folders(r, names=('boxes_train', 'boxes_test', 'query')), {},
        'boxes_test and boxes_train are called like splits',
    ),
    'flat validation': (
        lambda r: [class_folders(r, 'train'), photos(r, 'val/images/{}.jpg')], {},
        r'val/.* has no folders of classes(?s:.*)--val 0.2',
    ),
    'stray images': (
        both(class_folders, lambda r: photos(r, 'cover{}.jpg', count=1)), {},
        r'1 images are beside the folders of classes, such as cover0.jpg(?s:.*)--skip-stray',
    ),
    'arrays': (
        lambda r: [photos(r, 'images/{}.png'), texts(r, {f'masks/{i}.npy': 'NUMPY' for i in range(4)})], {},
        r'arrays, such as masks/0.npy(?s:.*)Export label maps as PNG files',
    ),
    'videos': (lambda r: texts(r, {'a.mp4': 'x'}), {}, 'videos without images'),
    'nothing': (lambda r: texts(r, {'a.doc': ''}), {}, r'1 .doc \(such as a.doc\)'),
    'cut off': (
        lambda r: [coco_with(r, lambda c: None), (r / 'a.json').write_text((r / 'a.json').read_text()[:900])], {},
        'a.json is cut off at line 1',
    ),
    'web page': (both(class_folders, lambda r: texts(r, {'a.json': '<!DOCTYPE html><html></html>'})), {}, 'web page'),
    'git lfs': (
        both(class_folders, lambda r: texts(r, {'a.json': 'version https://git-lfs.github.com/spec/v1\n'})),
        {}, 'git lfs pull',
    ),
    'panoptic': (
        lambda r: coco_with(r, lambda c: c.update(annotations=[dict(segments_info=[], image_id=1)])), {}, 'panoptic',
    ),
    'label studio': (
        both(class_folders, lambda r: texts(r, {'tasks.json': '[{"id": 1, "completions": []}]'})), {}, 'Label Studio',
    ),
    'cvat': (
        both(class_folders, lambda r: texts(r, {'a.xml': '<annotations><version>1.1</version><meta/></annotations>'})),
        {}, 'XML of CVAT',
    ),
    'YOLO without names': (lambda r: [yolo(r), (r / 'data.yaml').unlink()], {}, '--classes NAME'),
    'YOLO, class without name': (lambda r: yolo(r, '7 0.5 0.5 0.1 0.1'), {}, r'0.txt, line 1 has the class 7'),
    'YOLO, half a polygon': (lambda r: yolo(r, '0 0.5 0.5 0.1 0.1 0.1 0.1 0.1'), {}, r'0.txt, line 1 has 7 numbers'),
    'YOLO with scores': (
        lambda r: yolo(r, '1 0.5 0.25 0.125 0.5 0.93\n'), {}, r'with its score, not a label\. Remove the last',
    ),
    'YOLO in pixels': (
        lambda r: yolo(r, '1 30 20 12 40\n0 0 0 8 9\n'), {},
        r'all lines of all files are in pixels, such as in train/labels/0.txt(?s:.*)\n Write class, x and y [^\n]*$',
    ),
    'a line of YOLO in pixels': (
        lambda r: yolo(r, BOX + '1 30 20 12 40\n'), {}, '0.txt, line 2 has numbers that are not fractions',
    ),
    'broken XML': (
        lambda r: [voc(r), texts(r, {'VOC2007/Annotations/0.xml': '<annotation><object>'})], {}, 'not a sound XML file',
    ),
    'an option for another task': (class_folders, AB, '--classes does not apply to a folder.*, remove --classes;'),
    'repairs of another format': (voc, {'fix': True}, '--fix does not apply to XML'),
    'names that mean no class': (
        lambda r: pairs(r, 'images/{}.jpg', 'masks/{}.png'), {'classes': ['void', 'bus', 'car']},
        '0 is void, 1 is bus or 0 is bus, 1 is car',
    ),
    'names in Latin-1': (
        lambda r: encoded(r, 'Straße\nBäume\n', 'latin-1'), {}, r'not in UTF-8.* in latin1.*iconv -f latin1',
    ),
    'names in another encoding': (
        lambda r: encoded(r, '機車\r\n汽車\r\n', 'cp950'), {}, r"not in UTF-8.*'機車' in big5(?s:.*)Replace it",
    ),
    'XML files whose images have copies': (
        with_copies, {'task': 'instances'},
        r'2 of the 5 XML .* have several images of their name .*0.xml, with .*copies/0.jpg',
    ),
    'XML files of images that were resized': (
        lambda r: resized_voc(r, 128), {}, r'3 of 3 images .* has 64×48 pixels, its annotations are for 128×96',
    ),
    'labelme files of images that were resized': (
        lambda r: [labelme(r), [dump(f, {**json.loads(f.read_text()), 'imageWidth': 128, 'imageHeight': 48})
                                for f in r.glob('*.json')]],
        {}, '64×48 pixels, its annotations are for 128×48',
    ),
    'two orders of names': (
        two_folders({'classes.txt': 'cola\nsprite\n', 'ben/classes.txt': 'sprite\ncola\n'}, ANNA_BEN), COLA,
        r'number 0 is cola in classes.txt and sprite in ben/classes.txt(?s:.*)new_config.py \S*/data/ben',
    ),
    'names in each folder, and an option': (
        two_folders({'anna/classes.txt': 'cola\nfanta\n', 'ben/classes.txt': 'cola\n'}, ANNA_BEN), COLA,
        'Omit --classes',
    ),
    'names that the option lacks': (
        two_folders({'a/classes.txt': 'cola\nfanta\n', 'b/classes.txt': 'cola\n'}, ANNA_BEN), COLA, 'fanta .* no class',
    ),
    'two YAML files': (
        two_folders({'a.yaml': 'nc: 1\nnames: [cola]\n', 'b.yaml': 'nc: 1\nnames: [fanta]\n'}, ANNA_BEN), {},
        r'number 0 is cola in a.yaml and fanta in b.yaml(?s:.*)new_config.py \S*/data/a.yaml',
    ),
    'two files of names': (
        two_folders({'labels.txt': 'cola\nfanta\n', 'classes.txt': 'fanta\ncola\n'}, ANNA_BEN), {}, '--classes FILE',
    ),
    'YOLO, a polygon outside': (lines_of(lambda *box: (0.1, 0.1, 0.9, 0.1, 2.0, 0.3)), {}, 'not fractions'),
    'two annotation files about the same images': (
        lambda r: [coco_folder(r, f'trainval{end}.json', 'one') for end in ('', '_fixed')], {},
        '(?s)trainval.json.*trainval_fixed.json.* image one/0.jpg.*--val',
    ),
    'some objects without a mask': (
        lambda r: coco_with(r, lambda c: c['annotations'][0].update(segmentation=[])), {},
        '1 of 10 objects.*--model faster-rcnn',
    ),
    'a model of masks for boxes': (
        lambda r: coco_folder(r, 'a.json', '', with_mask=False), {'model': 'mask-rcnn'}, 'no masks.*faster-rcnn',
    ),
    'a model that does not exist': (class_folders, {'model': 'tiny'}, 'tiny is not a model.*nano, small'),
    'a model of another task': (class_folders, {'model': 'mask-rcnn'}, 'mask-rcnn does not fit.*stvit'),
    'values without names': (
        lambda r: pairs(r, 'images/{}.jpg', 'masks/{}.png', values=(0, 2, 255, 255)), {},
        r'0 \(25.00%\), 2 \(25.00%\), 255 \(50.00%\).*--classes.*--ignore',
    ),
    'two names of three values': (
        lambda r: pairs(r, 'i/{}.jpg', 'm/{}.png', values=(0, 1, 2)), AB, '2 names for the values.*--ignore VALUE',
    ),
    'names of all values but 255 or but the last': (
        lambda r: pairs(r, 'i/{}.jpg', 'm/{}.png', values=(0, 1, 255)), {'classes': ['a', 'b', 'c']},
        '0 is a, 1 is b or 0 is a, 1 is b, 255 is c.*--ignore VALUE',
    ),
    'names of values with gaps': (
        lambda r: pairs(r, 'i/{}.jpg', 'm/{}.png', values=(0, 9, 20)), AB, '--classes VALUE=NAME',
    ),
    'one value of two with a name': (
        lambda r: pairs(r, 'i/{}.jpg', 'm/{}.png', values=(0, 9)), {'classes': ['0=a']}, r'without a name: 9 \(50',
    ),
    'missing images': (missing, {}, '1 of the 5 images .*--skip-missing'),
}  # fmt: skip


@pytest.mark.parametrize('layout', FOUND)
def test_a_layout_is_found(layout, tmp_path):
    build, options, classes, counts, *notes = FOUND[layout]
    made = make(tmp_path, build, **options)
    assert made.data.classes == classes.split(',' if ',' in classes else None)
    assert (*made.data.counts.values(),) == counts
    assert [note for note in notes if note not in '\n'.join(made.notes)] == []


@pytest.mark.parametrize('layout', REFUSED)
def test_a_layout_is_refused_with_the_cause(layout, tmp_path):
    build, options, message = REFUSED[layout]
    with pytest.raises(UserError, match=message):
        make(tmp_path, build, **options)
    assert not (tmp_path / 'mine.py').exists()


def test_a_list_of_a_split_is_not_called_unread(tmp_path):
    def build(root: Path) -> None:
        photos(root, 'a/{}.jpg', 'b/{}.jpg', count=5)
        for i, name in enumerate(('train', 'val')):
            lines(root, f'{name}_list.txt', 'a\\{}.jpg 0', 'b\\{}.jpg 1', numbers=range(3 * i, 3 + 2 * i))

    with pytest.raises(UserError, match=r'a file that names images(?s:.*)--task classes'):
        make(tmp_path, build)
    notes = make(tmp_path, build, task='classes').data.notes
    assert 'train: the images that train_list.txt lists' in notes and not any('not read' in note for note in notes)


@pytest.mark.parametrize(
    ('image', 'label'),
    [('{}.jpg', '{}.png'), ('x/{}.png', 'x/{}_label.bmp'), ('images/{}.png', 'masks/{}.png')],
)
def test_label_maps_in_folders_of_classes_are_no_images_of_the_class(image, label, tmp_path):
    made = make(tmp_path, lambda root: pairs_of_classes(root, image, label), task='classes')
    files = {split: Path(tmp_path, f'mine_{split}.txt').read_text().splitlines() for split in ('train', 'val')}
    places = {split: made.data.datasets[split]['data_prefix'] for split in files}
    listed = [(Path(places[split]) / line).as_posix() for split in files for line in files[split]]
    assert sorted(listed) == sorted(f'{"ab"[i > 3]}/{image.format(i)} {int(i > 3)}' for i in range(9))
    assert f'left out: 8 label maps beside images of classes (first: a/{label.format(0)})' in made.notes


@pytest.mark.parametrize('layout', ['masks with other names', 'folders named like images', 'classes in groups'])
def test_the_task_overrules_what_speaks_against_folders_of_classes_with_a_warning(layout, tmp_path):
    build, _, message = REFUSED[layout]
    made = make(tmp_path, build, task='classes')
    (warning,) = [line for line in made.notes if line.startswith('warning: ')]
    assert message.partition('(?s')[0].partition(r' \(')[0] in warning


def test_copies_of_maps_have_the_labels_of_the_maps(tmp_path):
    """Maps that do not begin with the name of their image, and colors, of which white is named first."""
    made = make(tmp_path / 'names', FOUND['other first words'][0], **AB)
    for split in made.data.datasets:
        for name in (tmp_path / f'names/mine_{split}.txt').read_text().split():
            copy = cv2.imread(str(tmp_path / f'names/mine_maps/{split}/{name}.png'), -1)
            source = cv2.imread(str(tmp_path / f'names/data/m/{name.replace("img", "mask")}.png'), -1)
            assert (copy == source).all()
    make(tmp_path / 'colors', FOUND['DeepGlobe'][0])
    path = next((tmp_path / 'colors').glob('mine_maps/train/*.png'))
    assert [cv2.imread(str(path), -1)[0, column] for column in (0, -1)] == [1, 0]  # left black, right white


def test_a_map_belongs_to_one_image(tmp_path):
    made = make(tmp_path, restarting_numbers, **AB)
    names = [name for split in ('train', 'val') for name in (tmp_path / f'mine_{split}.txt').read_text().split()]
    assert sorted(names) == [f'{place}/{i}' for place in 'ab' for i in range(5)]
    assert made.data.datasets['train']['data_prefix'] == dict(img_path='images', seg_map_path='masks')


def test_masks_that_an_end_leaves_out_are_counted(tmp_path):
    build = REFUSED['pycococreator, a mask for each object'][0]
    made = make(tmp_path, build, map_suffix='_fig_0.png', **AB)
    assert 'not used: 6 other files about these images, such as notes/0_fig_1.png' in made.notes
