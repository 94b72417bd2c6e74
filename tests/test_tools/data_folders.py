"""Folders of data for the tests of ``new_config.py``: images, label maps, annotations and tables in a few lines."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from mmstvit.apis.new_config import NewConfig, Options, new_config

from ..test_datasets.tiny_data import draw, write

HEIGHT, WIDTH = 48, 64
CLASSES = ('fork', 'spoon')
YAML = 'path: ../data\ntrain: {train}\nval: {val}\nnc: 2\nnames: [fork, spoon]\n'
XML = """<annotation><folder>x</folder><filename>{name}.jpg</filename>
<object><name>spoon</name><bndbox><xmin>4</xmin><ymin>6.5</ymin><xmax>20</xmax><ymax>30</ymax></bndbox></object>
<object><name>fork</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>12</ymax></bndbox></object></annotation>"""
CENTERS = ((0.3, 0.4, 0.3, 0.1), (0.7, 0.8, 0.2, 0.2), (0.4, 0.7, 0.4, 0.2), (0.8, 0.2, 0.3, 0.3))
BOX = '1 0.5 0.25 0.125 0.5\n'
SEEDS = itertools.count(1000)
Build = Callable[[Path], object]


def photo(path: Path, seed: int) -> None:
    write(path, draw(seed, HEIGHT, WIDTH, 3))


def picture(seed: int) -> np.ndarray:
    return cv2.resize(draw(seed, 6, 7, 3), (96, 80), interpolation=cv2.INTER_CUBIC)


def photos(root: Path, *patterns: str, count: int = 4, start: int = 0) -> None:
    for pattern in patterns:
        for i in range(start, start + count):
            photo(root / pattern.format(i), next(SEEDS))


def dump(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def texts(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def lines(root: Path, file: str, *patterns: str, numbers: range = range(4)) -> None:
    texts(root, {file: ''.join(f'{pattern.format(i)}\n' for pattern in patterns for i in numbers)})


def annotate(names: list[str], with_mask: bool = True, classes: tuple[str, ...] = CLASSES, **extra: object) -> dict:
    """A COCO file with one object of each class in every image."""
    images = [dict(id=i, file_name=name, width=WIDTH, height=HEIGHT) for i, name in enumerate(names, 1)]
    annotations = []
    for image in images:
        for label in range(1, len(classes) + 1):
            x, y = 8 * label, 6
            polygon = [x, y, x + 20, y, x + 20, y + 12, x + 16, y + 16, x, y + 16]
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=image['id'], category_id=label, bbox=[x, y, 20, 16], area=312,
                    iscrowd=0, segmentation=[polygon] if with_mask else [],
                )
            )  # fmt: skip
    categories = [dict(id=i, name=name, supercategory='') for i, name in enumerate(classes, 1)]
    return dict(images=images, annotations=annotations, categories=categories, **extra)


def coco_folder(
    root: Path, file: str, images: str, count: int = 5, prefix: str = '', seed: int = 0, **kw: object
) -> None:
    """An annotation file with images, whose ``file_name`` begins with ``prefix``."""
    names = [f'{seed + i}.jpg' for i in range(5)]
    for i, name in enumerate(names):
        photo(root / images / name, seed + i)
    dump(root / file, annotate([prefix + name for name in names], **kw))


def coco_with(root: Path, change: Callable[[dict], None], name: str = 'a.json', images: str = '') -> None:
    for i in range(5):
        photo(root / f'{images}{i}.jpg', i)
    content = annotate([f'{i}.jpg' for i in range(5)])
    change(content)
    dump(root / name, content)


def maps_folder(root: Path, images: str, maps: str, count: int = 5, seed: int = 0, values: object = (0, 1)) -> None:
    """Images and label maps; the left half of a map has the first value, and so on."""
    for i in range(count):
        photo(root / images.format(seed + i), seed + i)
        labels = np.repeat(np.array(values, np.uint8), math.ceil(WIDTH / len(values)), axis=0)[:WIDTH]
        labels = np.broadcast_to(labels, (HEIGHT, *labels.shape)).copy()
        write(root / maps.format(seed + i), labels[..., ::-1] if labels.ndim == 3 else labels)


def pairs(root: Path, *both: str, count: int = 4, start: int = 0, values: object = (0, 1)) -> None:
    """Photographs, and label maps for them in each of the other patterns."""
    for maps in both[1:]:
        maps_folder(root, both[0], maps, count, start, values)


def class_folders(root: Path, *splits: str, names: tuple[str, ...] = ('ant', 'bee'), suffix: str = '.jpg') -> None:
    for seed, split in enumerate(splits or ('',)):
        for label, name in enumerate(names):
            for i in range(5):
                photo(root / split / name / f'{i}{suffix}', 100 * seed + 10 * label + i)


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


def voc_files(root: Path, *patterns: str, count: int = 4) -> None:
    files = [pattern.format(i) for pattern in patterns for i in range(count)]
    texts(root, {f'{file}.xml': XML.format(name=Path(file).name) for file in files})


def labelme(root: Path, shapes: list[dict] | None = None) -> None:
    circle = dict(label='spoon', points=[[20, 20], [23, 24]], shape_type='circle')
    rectangle = dict(label='fork', points=[[30, 10], [40.5, 22]], shape_type='rectangle')
    for i in range(5):
        photo(root / f'{i}.jpg', i)
        content = dict(version='5', imagePath=f'..\\{i}.jpg', shapes=shapes or [circle, rectangle])
        dump(root / f'{i}.json', content)


def both(*builds: Build) -> Build:
    return lambda root: [build(root) for build in builds]


def with_table(table: str, *patterns: str, file: str = 'train.csv', **kw: int) -> Build:
    """Photographs and a table; its lines from the second on are repeated for the numbers 0 to 3."""
    header, *rows = table.splitlines()
    rows = [row.replace('#', str(i)) for i in range(4) for row in rows]
    return lambda root: [photos(root, *patterns, **kw), texts(root, {file: '\n'.join((header, *rows, ''))})]


def two_folders(names: dict[str, str], numbers: dict[str, int]) -> Callable[[Path], None]:
    """Labels of two people, with files of names; a number for each folder."""

    def build(root: Path) -> None:
        for seed, (top, number) in enumerate(numbers.items()):
            for i in range(3):
                photo(root / f'{top}/{top}{i}.jpg', 10 * seed + i)
                texts(root, {f'{top}/{top}{i}.txt': BOX.replace('1', str(number), 1)})
        texts(root, names)

    return build


def lines_of(numbers: Callable[[float, float, float, float], tuple]) -> Callable[[Path], None]:
    """Labels with one line per image, made of a box (center, width, height)."""

    def build(root: Path) -> None:
        for i, box in enumerate(CENTERS):
            photo(root / f'{i}.jpg', i)
            texts(root, {f'{i}.txt': f'0 {" ".join(f"{number:.6f}" for number in numbers(*box))}\n'})
        texts(root, {'classes.txt': 'plate\n'})

    return build


def make(folder: Path, build: Build, **options: object) -> NewConfig:
    """Make a config for data in ``folder/data``, which stay as they are; places in options are below them."""
    data = folder / 'data'
    build(data)
    before = {path: path.stat().st_mtime_ns for path in data.rglob('*')}
    for key in {'maps', 'images', 'val'} & options.keys():
        if (data / options[key]).is_dir():
            options[key] = str(data / options[key]) if key == 'val' else data / options[key]
    made = new_config(Options(data=data, out=folder / 'mine.py', **options))
    made.write()
    assert {path: path.stat().st_mtime_ns for path in data.rglob('*')} == before
    return made
