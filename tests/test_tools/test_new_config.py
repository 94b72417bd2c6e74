"""``tools/new_config.py``: each layout of data becomes a config that loads, passes the rules, and trains."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from mmstvit.apis import read_config
from mmstvit.rules import CHEAP, THOROUGH, check

from ..in_process import run_main
from ..test_datasets.tiny_data import draw, write

HEIGHT, WIDTH = 48, 64
CLASSES = ('fork', 'spoon')


def photo(path: Path, seed: int) -> None:
    write(path, draw(seed, HEIGHT, WIDTH, 3))


def annotate(names: list[str], with_mask: bool = True, classes: tuple[str, ...] = CLASSES, **extra: object) -> dict:
    """A COCO file with one object of each class in every image."""
    images = [dict(id=i, file_name=name, width=WIDTH, height=HEIGHT) for i, name in enumerate(names, 1)]
    annotations = []
    for image in images:
        for label in range(1, len(classes) + 1):
            x, y = 8 * label, 6
            polygon = [x, y, x + 20, y, x + 20, y + 16, x, y + 16]
            annotations.append(
                dict(
                    id=len(annotations) + 1, image_id=image['id'], category_id=label, bbox=[x, y, 20, 16], area=320,
                    iscrowd=0, segmentation=[polygon] if with_mask else [],
                )
            )  # fmt: skip
    categories = [dict(id=i, name=name, supercategory='') for i, name in enumerate(classes, 1)]
    return dict(images=images, annotations=annotations, categories=categories, **extra)


def dump(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco_folder(
    root: Path, file: str, images: str, count: int = 5, prefix: str = '', seed: int = 0, **kw: object
) -> None:
    """An annotation file with images, whose ``file_name`` begins with ``prefix``."""
    names = [f'{seed + i}.jpg' for i in range(count)]
    for i, name in enumerate(names):
        photo(root / images / name, seed + i)
    dump(root / file, annotate([prefix + name for name in names], **kw))


def roboflow(root: Path, **kw: object) -> None:
    for seed, split in enumerate(('train', 'valid', 'test')):
        coco_folder(root, f'{split}/_annotations.coco.json', split, seed=100 * seed, **kw)


def coco_2017(root: Path) -> None:
    for seed, split in enumerate(('train', 'val')):
        coco_folder(root, f'annotations/instances_{split}2017.json', f'{split}2017', seed=100 * seed)
        dump(root / f'annotations/captions_{split}2017.json', dict(images=[], annotations=[]))


INSTANCES: dict[str, Callable[[Path], None]] = {
    'roboflow': roboflow,
    'coco 2017': coco_2017,
    'cvat': lambda root: coco_folder(root, 'annotations/instances_default.json', 'images'),
    'labelme2coco': lambda root: coco_folder(root, 'trainval.json', 'JPEGImages', prefix='JPEGImages/'),
    'via': lambda root: coco_folder(root, 'via_export_coco.json', ''),
    'label studio': lambda root: coco_folder(root, 'result.json', 'images', prefix='images/'),
}


def maps_folder(root: Path, images: str, maps: str, count: int = 5, seed: int = 0, values: object = (0, 1)) -> None:
    """Images and label maps; the left half of a map has the first value, and so on."""
    for i in range(count):
        photo(root / images.format(seed + i), seed + i)
        labels = np.repeat(np.array(values, np.uint8), math.ceil(WIDTH / len(values)), axis=0)[:WIDTH]
        labels = np.broadcast_to(labels, (HEIGHT, *labels.shape)).copy()
        write(root / maps.format(seed + i), labels[..., ::-1] if labels.ndim == 3 else labels)


def mmsegmentation(root: Path) -> None:
    for seed, split in enumerate(('training', 'validation')):
        maps_folder(root, f'images/{split}/{{}}.jpg', f'annotations/{split}/{{}}.png', seed=100 * seed)


def camvid(root: Path) -> None:
    for seed, split in enumerate(('train', 'val', 'test')):
        maps_folder(root, f'{split}/{{}}.png', f'{split}annot/{{}}.png', seed=100 * seed)


def cityscapes(root: Path) -> None:
    for seed, split in enumerate(('train', 'val')):
        for city in ('ulm', 'bonn'):
            images, maps = f'leftImg8bit/{split}/{city}', f'gtFine/{split}/{city}'
            maps_folder(
                root, f'{images}/{city}_{{}}_leftImg8bit.png', f'{maps}/{city}_{{}}_gtFine_labelIds.png', 3, 100 * seed
            )


SEGMENTS: dict[str, Callable[[Path], None]] = {
    'mmsegmentation': mmsegmentation,
    'camvid': camvid,
    'cityscapes': cityscapes,
    'no split': lambda root: maps_folder(root, 'images/{}.jpg', 'masks/{}.png'),
    'splits outside': lambda root: [
        maps_folder(root, f'{s}/images/{{}}.jpg', f'{s}/labels/{{}}_mask.png', seed=100 * i)
        for i, s in enumerate(('train', 'val'))
    ],
    'voc': lambda root: maps_folder(root, 'JPEGImages/{}.jpg', 'SegmentationClass/{}.png'),
    'maps beside': lambda root: [
        maps_folder(root, f'{s}/{{}}.jpg', f'{s}/{{}}_mask.png', seed=100 * i) for i, s in enumerate(('train', 'valid'))
    ],
}  # fmt: skip


def class_folders(root: Path, *splits: str, names: tuple[str, ...] = ('ant', 'bee'), suffix: str = '.jpg') -> None:
    for seed, split in enumerate(splits or ('',)):
        for label, name in enumerate(names):
            for i in range(5):
                photo(root / split / name / f'{i}{suffix}', 100 * seed + 10 * label + i)


@pytest.fixture
def make(tmp_path, capsys):
    """Run the tool on ``data`` beside an empty folder ``out``; returns the config, if it was written, and the output."""
    out = tmp_path / 'out'
    out.mkdir()

    def make(*args: object, data: str = 'data') -> tuple[Config | None, str]:
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'data').rglob('*')}
        try:
            run_main('new_config.py', tmp_path / data, '--out', out / 'mine.py', *args, cwd=tmp_path)
        finally:
            assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'data').rglob('*')} == before
        file = out / 'mine.py'
        return read_config(str(file), None) if file.exists() else None, capsys.readouterr().out

    return make


def verify(cfg: Config) -> None:
    """Fail if a rule, of train.py or verify_dataset.py, finds anything."""
    report = check(cfg, ('train', 'val', 'test'), (*CHEAP, *THOROUGH))
    assert [(f.kind, f.text) for f in report.findings] == []


def inner(cfg: Config, split: str) -> dict:
    return cfg[f'{split}_dataloader'].dataset


@pytest.mark.parametrize('layout', INSTANCES)
def test_instances(layout, make, tmp_path):
    INSTANCES[layout](tmp_path / 'data')
    cfg, output = make()
    assert inner(cfg, 'train').metainfo.classes == CLASSES
    heads = cfg.model.roi_head
    assert heads.bbox_head.num_classes == heads.mask_head.num_classes == 2
    assert cfg.val_evaluator.ann_file == str(Path(inner(cfg, 'val').data_root, inner(cfg, 'val').ann_file))
    assert len(set(map(tuple, inner(cfg, 'train').metainfo.palette))) == 2
    verify(cfg)
    for tool in ('verify_dataset.py', 'train.py', 'predict.py'):
        assert tool in output
    split = layout not in ('roboflow', 'coco 2017')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'mine.py',
        *['mine_train.json', 'mine_val.json'] * split,
    ]


def test_test_split_of_roboflow_is_tested(make, tmp_path):
    roboflow(tmp_path / 'data')
    cfg, _ = make()
    assert [inner(cfg, split).ann_file.split('/')[0] for split in ('train', 'val', 'test')] == [
        'train',
        'valid',
        'test',
    ]
    assert '/test/' in cfg.test_evaluator.ann_file


def test_group_without_objects_is_no_class(make, tmp_path):
    """Roboflow's first category is the group of the others."""
    roboflow(tmp_path / 'data', classes=('fork',))
    for file in (tmp_path / 'data').rglob('*.json'):
        content = json.loads(file.read_text())
        content['categories'] = [
            dict(id=0, name='forks', supercategory='none'),
            dict(id=1, name='fork', supercategory='forks'),
        ]
        dump(file, content)
    cfg, output = make()
    assert inner(cfg, 'train').metainfo.classes == ('fork',)
    assert 'forks' in output
    verify(cfg)


def test_boxes_alone_get_a_model_of_boxes(make, tmp_path):
    coco_folder(tmp_path / 'data', 'a.json', '', with_mask=False)
    cfg, _ = make()
    assert cfg.model.type == 'FasterRCNN'
    assert cfg.val_evaluator.metric == 'bbox'
    verify(cfg)
    with pytest.raises(SystemExit, match='no masks.*faster-rcnn'):
        make('--model', 'mask-rcnn', '--force')


def test_some_objects_without_a_mask_are_refused(make, tmp_path):
    content = annotate(['0.jpg', '1.jpg'])
    content['annotations'][0]['segmentation'] = []
    for i in range(2):
        photo(tmp_path / f'data/{i}.jpg', i)
    dump(tmp_path / 'data/a.json', content)
    with pytest.raises(SystemExit, match='1 of 4 objects.*--model faster-rcnn'):
        make()
    assert make('--model', 'faster-rcnn')[0].model.type == 'FasterRCNN'


@pytest.mark.parametrize('layout', SEGMENTS)
def test_segments(layout, make, tmp_path):
    SEGMENTS[layout](tmp_path / 'data')
    cfg, _ = make('--classes', 'road', 'car')
    assert inner(cfg, 'train').metainfo.classes == ('road', 'car')
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 2
    assert cfg.model.decode_head.loss_decode.class_weight is None
    verify(cfg)


@pytest.mark.parametrize('splits', [(), ('train', 'val'), ('train', 'test')], ids=lambda splits: '-'.join(splits))
def test_classes(splits, make, tmp_path):
    class_folders(tmp_path / 'data', *splits)
    cfg, _ = make()
    assert list(inner(cfg, 'train').classes) == ['ant', 'bee']
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 2
    assert cfg.val_evaluator.topk == (1,)
    verify(cfg)


def test_a_file_in_a_folder_with_spaces_and_umlauts(make, tmp_path):
    coco_folder(tmp_path / 'data', 'Größe der Äpfel/alle Äpfel.json', "Größe der Äpfel/Bilder d'Ü")
    cfg, _ = make(data='data/Größe der Äpfel/alle Äpfel.json')
    verify(cfg)
