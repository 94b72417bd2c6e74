"""``tools/new_config.py``: each layout of data becomes a config that loads, passes the rules, and trains."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmstvit import STViT
from mmstvit.apis import build_model, read_config
from mmstvit.rules import check
from mmstvit.rules.facts import find_num_classes

from ..in_process import run_main
from ..test_rules.coco_defects import find
from .data_folders import CLASSES, HEIGHT, WIDTH, annotate, class_folders, coco_folder, dump, maps_folder, photo


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
            first = 100 * seed + 10 * len(city)
            maps_folder(
                root, f'{images}/{city}_{{}}_leftImg8bit.png', f'{maps}/{city}_{{}}_gtFine_labelIds.png', 3, first
            )


SEGMENTS: dict[str, Callable[[Path], None]] = {
    'mmsegmentation': mmsegmentation,
    'camvid': camvid,
    'cityscapes': cityscapes,
    'maps beside': lambda root: [
        maps_folder(root, f'{s}/{{}}.jpg', f'{s}/{{}}_mask.png', seed=100 * i) for i, s in enumerate(('train', 'valid'))
    ],
}  # fmt: skip


@pytest.fixture
def make(tmp_path, capsys):
    """Run the tool on the folder ``data``; returns the config, if it was written to ``out``, and the output."""
    out = tmp_path / 'out'
    out.mkdir()

    def make(*args: object, data: str = 'data') -> tuple[Config | None, str]:
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'data').rglob('*')}
        try:
            run_main('new_config.py', tmp_path / data, '--out', out / 'mine.py', *args, cwd=tmp_path)
        finally:
            assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'data').rglob('*')} == before
        cfg = read_config(str(out / 'mine.py'), None) if (out / 'mine.py').exists() else None
        assert '_delete_' not in repr(cfg)  # it stays where the base has nothing to delete
        return cfg, capsys.readouterr().out

    return make


def verify(cfg: Config) -> None:
    """Fail if a rule, of train.py or verify_dataset.py, finds anything."""
    assert findings(cfg) == []


def findings(cfg: Config) -> list[tuple[str, str]]:
    report = check(cfg, ('train', 'val', 'test'), complete=True)
    return [(finding.kind, finding.line) for finding in report.findings]


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
    if layout == 'roboflow':
        assert Path(cfg.test_evaluator.ann_file).parent.name == Path(inner(cfg, 'test').ann_file).parent.name == 'test'
    verify(cfg)
    for tool in ('verify_dataset.py', 'train.py', 'predict.py'):
        assert tool in output
    split = layout not in ('roboflow', 'coco 2017')
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'mine.py',
        *['mine_train.json', 'mine_val.json'] * split,
    ]


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


def test_masks_that_are_the_rectangles_of_their_boxes_are_learned_as_boxes(make, tmp_path):
    content = annotate(['0.jpg', '1.jpg', '2.jpg'])
    for item in content['annotations']:
        x, y, width, height = item['bbox']
        item['segmentation'] = [[x, y, x, y + height, x + width, y + height, x + width, y, x, y]]
    for i in range(3):
        photo(tmp_path / f'data/{i}.jpg', i)
    dump(tmp_path / 'data/a.json', content)
    cfg, output = make()
    assert cfg.model.type == 'FasterRCNN'
    assert 'all masks are the rectangles of their boxes' in output
    assert make('--model', 'mask-rcnn', '--force')[0].model.type == 'MaskRCNN'


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


# Several layouts or meanings: the message lists them, and the option to choose.


def test_annotation_files_about_other_images_are_joined_or_named(make, tmp_path):
    coco_folder(tmp_path / 'data', 'one/trainval.json', 'one', classes=('fork', 'spoon'))
    coco_folder(tmp_path / 'data', 'two/trainval.json', 'two', seed=9, classes=('spoon', 'knife', 'fork'))
    cfg, _ = make()
    contents = [
        json.loads(Path(inner(cfg, split).data_root, inner(cfg, split).ann_file).read_text())
        for split in ('train', 'val')
    ]
    found = Counter()
    for content in contents:
        names = {category['id']: category['name'] for category in content['categories']}
        files = {image['id']: image['file_name'] for image in content['images']}
        found.update((files[item['image_id']][:3], names[item['category_id']]) for item in content['annotations'])
    two = {('two', name): 5 for name in ('fork', 'knife', 'spoon')}
    assert found == {('one', 'fork'): 5, ('one', 'spoon'): 5, **two}
    assert list(inner(cfg, 'train').metainfo.classes) == ['fork', 'spoon', 'knife']
    verify(cfg)
    cfg, _ = make('--force', '--val', tmp_path / 'data/one/trainval.json', data='data/two/trainval.json')
    assert [
        Path(inner(cfg, split).data_root, inner(cfg, split).data_prefix.img).name for split in ('train', 'val')
    ] == [
        'two',
        'one',
    ]
    verify(cfg)
    dump(tmp_path / 'data/two/val.json', annotate(['9.jpg']))
    _, output = make('--force', data='data/two/trainval.json')
    assert 'not used: 1 other files, such as val.json; for validation: --val FILE' in output


# The meaning of label maps.

RGB = ((10, 20, 30), (200, 0, 0), (0, 0, 0))
NAMES = {
    'label_colors.txt': '10 20 30\troad\n200 0 0\tcar\n0 0 0\tVoid\n',
    'class_dict.csv': 'name,r,g,b\nroad,10,20,30\ncar,200,0,0\nvoid,0,0,0\n',
    'labelmap.txt': '# label:color_rgb:parts:actions\nroad:10,20,30::\ncar:200,0,0::\nignore:0,0,0::\n',
}


def labels_of(cfg: Config, split: str = 'train') -> dict[int, int]:
    """The labels that a segmentor learns, in one map, with their numbers of pixels."""
    from mmengine.registry import DATASETS, DefaultScope

    with DefaultScope.overwrite_default_scope('mmseg'):
        dataset = inner(cfg, split)
        dataset.pipeline = [dict(type='LoadAnnotations')]
        values, counts = np.unique(DATASETS.build(dataset)[0]['gt_seg_map'], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


@pytest.mark.parametrize('file', NAMES)
def test_colors_become_labels_in_copies(file, make, tmp_path):
    maps_folder(tmp_path / 'data', 'images/{}.jpg', 'masks/{}.png', values=(*RGB, RGB[0]))
    (tmp_path / 'data' / file).write_text(NAMES[file])
    cfg, _ = make()
    quarter = HEIGHT * WIDTH // 4
    assert labels_of(cfg) == {0: 2 * quarter, 1: quarter, 255: quarter}
    assert inner(cfg, 'train').metainfo.classes == ('road', 'car')
    assert [tuple(color) for color in inner(cfg, 'train').metainfo.palette] == list(RGB[:2])
    verify(cfg)


HALF = HEIGHT * WIDTH // 2


@pytest.mark.parametrize(
    ('values', 'options', 'expected'),
    [
        ((0, 255), ['--classes', 'a', 'b'], {0: HALF, 1: HALF}),  # a mask, black and white
        ((0, 1), ['--classes', 'a', 'b'], {0: HALF, 1: HALF}),
        ((1, 2), ['--classes', 'a', 'b', '--ignore', '0'], {0: HALF, 1: HALF}),  # reduce_zero_label
        ((0, 11), ['--classes', 'a', '--ignore', '11'], {0: HALF, 255: HALF}),
        ((3, 7), ['--classes', '7=a', '3=b'], {0: HALF, 1: HALF}),
        (((0,) * 3, (255,) * 3), ['--classes', 'a', 'b'], {0: HALF, 1: HALF}),  # a mask of three equal channels
        (((0,) * 3, (9, 0, 0)), ['--classes', '#000000=a', '#090000=b'], {0: HALF, 1: HALF}),
    ],
    ids=lambda value: ' '.join(value) if isinstance(value, list) else None,
)
def test_values_become_labels(values, options, expected, make, tmp_path):
    maps_folder(tmp_path / 'data', 'images/{}.jpg', 'masks/{}.png', values=values)
    cfg, _ = make(*options)
    assert labels_of(cfg) == expected


def test_names_with_values_from_1_ignore_0(make, tmp_path):
    """As ADE20K has them."""
    maps_folder(tmp_path / 'data', 'images/{}.jpg', 'annotations/{}.png', values=(0, 2))
    (tmp_path / 'data/objectInfo150.txt').write_text('Idx\tRatio\tName\n1\t0.2\twall\n2\t0.1\tbuilding, edifice\n')
    cfg, _ = make()
    assert inner(cfg, 'train').metainfo.classes == ('wall', 'building')
    assert labels_of(cfg) == {1: HALF, 255: HALF}


def test_images_without_a_map_and_of_two_formats(make, tmp_path):
    maps_folder(tmp_path / 'data', 'images/{}.jpg', 'masks/{}.png')
    maps_folder(tmp_path / 'data', 'images/{}.png', 'masks/{}.png', seed=50)
    photo(tmp_path / 'data/images/alone.jpg', 99)
    cfg, output = make('--classes', 'a', 'b')
    assert 'left out: 1 files in the folders of images without a label map' in output
    assert inner(cfg, 'train').img_suffix == '' and inner(cfg, 'train').data_prefix.img_path == 'images'
    ((kind, text),) = findings(cfg)
    assert kind == 'unused file'
    assert 'alone.jpg' in text


@pytest.mark.parametrize('options', [('--task', 'classes'), ('--classes', 'a', 'b')])
def test_label_maps_beside_images_are_no_unused_files(options, make, tmp_path):
    for name, seed in (('ant', 0), ('bee', 5)):
        maps_folder(tmp_path / 'data', f'{name}/{name}{{}}.jpg', f'{name}/{name}{{}}.png', seed=seed, values=(0, 255))
    cfg, _ = make(*options)
    assert findings(cfg) == []
    photo(tmp_path / 'data/ant/ant0.bmp', 99)
    ((kind, text),) = findings(cfg)
    assert (kind, 'ant0.bmp' in text, '.png' in text) == ('unused file', True, False)


# Classes.


def test_classes_that_a_split_lacks_keep_their_labels(make, tmp_path):
    class_folders(tmp_path / 'data', 'train', names=('ant', 'bee', 'fly'))
    class_folders(tmp_path / 'data', 'val', names=('ant', 'fly'))
    cfg, _ = make()
    lines = Path(inner(cfg, 'val').ann_file).read_text().splitlines()
    assert {line.split()[1] for line in lines if line.startswith('fly/')} == {'2'}
    with pytest.raises(SystemExit, match=r'classes that train does not have: fla'):
        class_folders(tmp_path / 'data', 'val', names=('fla',))
        make('--force')


def test_what_cannot_be_decoded_is_left_out_aloud(make, tmp_path):
    class_folders(tmp_path / 'data')
    class_folders(tmp_path / 'data', suffix='.webp')
    (tmp_path / 'data/ant/x.gif').write_bytes(b'GIF89a of nothing')
    (tmp_path / 'data/ant/notes.txt').write_text('')
    (tmp_path / 'data/__MACOSX/ant').mkdir(parents=True)
    photo(tmp_path / 'data/__MACOSX/ant/0.jpg', 0)
    cfg, output = make()
    assert 'left out: 1 images that cannot be decoded (first: ant/x.gif: ' in output
    lines = [line for split in ('train', 'val') for line in Path(inner(cfg, split).ann_file).read_text().splitlines()]
    assert len(lines) == 20
    assert not any('MACOSX' in line for line in lines)


# What is written.


def test_equal_images_are_on_one_side_and_the_split_is_the_same_again(make, tmp_path):
    class_folders(tmp_path / 'data', suffix='.png')
    for copy in range(4):
        (tmp_path / f'data/bee/copy{copy}.png').write_bytes((tmp_path / 'data/bee/0.png').read_bytes())
    cfg, _ = make()
    texts = {split: Path(inner(cfg, split).ann_file).read_text() for split in ('train', 'val')}
    assert sum('bee/0.png' in text and 'copy3' in text for text in texts.values()) == 1
    assert sum('copy' in text for text in texts.values()) == 1
    make('--force')
    assert {split: Path(inner(cfg, split).ann_file).read_text() for split in texts} == texts


def test_fix_repairs_a_copy(make, tmp_path):
    """``test_coco_format.py`` repairs every defect of the table."""
    coco_folder(tmp_path / 'data', 'export.json', 'images')
    content = json.loads((tmp_path / 'data/export.json').read_text())
    planted = [find(what) for what in ('a category twice', 'Windows paths', 'image_id as string', 'no box', 'no area')]
    for defect in planted:
        defect.plant(content)
    dump(tmp_path / 'data/export.json', content)
    with pytest.raises(SystemExit) as refused:
        make()
    assert all(word in str(refused.value) for word in ('defects', "'fork'", '--fix'))
    cfg, output = make('--fix')
    assert all(f'repaired in train: {defect.kind}' in output for defect in planted)
    assert output.count('repaired in train') == len(planted)
    assert [c['name'] for c in json.loads(Path(inner(cfg, 'train').ann_file).read_text())['categories']] == list(
        CLASSES
    )
    verify(cfg)


def test_splits_get_the_same_categories(make, tmp_path):
    coco_2017(tmp_path / 'data')
    file = tmp_path / 'data/annotations/instances_val2017.json'
    content = json.loads(file.read_text())
    content['categories'].reverse()
    dump(file, content)
    cfg, output = make()
    assert 'val: categories spoon, fork → fork, spoon, as in train, in a copy' in output
    assert [c['id'] for c in json.loads(Path(inner(cfg, 'val').ann_file).read_text())['categories']] == [1, 2]
    verify(cfg)


def test_dry_run_prints_the_config_and_writes_nothing(make, tmp_path):
    class_folders(tmp_path / 'data')
    cfg, output = make('--dry-run')
    assert cfg is None
    compile(output[output.index('# Written by') :], 'config', 'exec')


def test_existing_files_and_the_folder_of_the_data_are_safe(make, tmp_path):
    class_folders(tmp_path / 'data')
    make()
    with pytest.raises(SystemExit, match=r'mine.py exists.*--force'):
        make()
    (tmp_path / 'out/mine.py').unlink()
    with pytest.raises(SystemExit, match=r'mine_train.txt exists.*--force'):
        make()
    with pytest.raises(SystemExit, match=r'in the folder of the data.*--out'):
        run_main('new_config.py', tmp_path / 'data', '--out', tmp_path / 'data/x.py', cwd=tmp_path)


# Numbers and models.


@pytest.mark.parametrize('epochs', [1, 40])
def test_the_schedule_fits_the_length(epochs, make, tmp_path):
    coco_folder(tmp_path / 'data', 'a.json', '')
    cfg, _ = make('--epochs', epochs, '--batch-size', 2)
    warmup, cosine = cfg.param_scheduler
    assert cfg.train_cfg.max_epochs == cosine.T_max == cosine.end == epochs
    assert 0 < warmup.end <= max(1, epochs * 2 // 10)
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.002 * (2 / 8) ** 0.5)


def test_many_objects_raise_the_limits(make, tmp_path):
    content = annotate(['0.jpg', '1.jpg'])
    first = content['annotations'][0]
    content['annotations'] += [dict(first, id=10 + i) for i in range(120)]
    for i in range(2):
        photo(tmp_path / f'data/{i}.jpg', i)
    dump(tmp_path / 'data/a.json', content)
    cfg, _ = make()
    assert cfg.model.test_cfg.rcnn.max_per_img >= 122
    assert cfg.model.test_cfg.rpn.max_per_img > 122
    verify(cfg)


DATA = {
    'mask-rcnn': lambda root: coco_folder(root, 'a.json', ''),
    'cascade-mask-rcnn': lambda root: coco_folder(root, 'a.json', ''),
    'faster-rcnn': lambda root: coco_folder(root, 'a.json', ''),
    'upernet': lambda root: maps_folder(root, 'images/{}.jpg', 'masks/{}.png'),
    'stvit': class_folders,
}


@pytest.mark.parametrize('size', ['nano', 'small', 'base', 'large'])
@pytest.mark.parametrize('family', DATA)
def test_every_family_and_size(family, size, make, tmp_path):
    DATA[family](tmp_path / 'data')
    cfg, _ = make('--model', f'{family}-{size}', *(['--classes', 'a', 'b'] if family == 'upernet' else []))
    assert cfg.model.backbone.arch == size
    assert {number for _, number in find_num_classes(cfg.model)} == {2}
    if size == 'nano':
        build_model(cfg)
        verify(cfg)


def test_weights_decide_the_size(make, tmp_path):
    class_folders(tmp_path / 'data')
    file = tmp_path / 'nano.pth'
    torch.save(STViT('nano').state_dict(), file)
    cfg, _ = make('--weights', file)
    assert cfg.model.backbone.arch == 'nano'
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint=str(file))
    with pytest.raises(SystemExit, match=r'STViT-nano.*asks for small'):
        make('--weights', file, '--model', 'small', '--force')


def test_training_with_the_written_config(make, tmp_path):
    """One epoch; the checkpoint and the images are where the printed command for predict.py names them."""
    DATA['stvit'](tmp_path / 'data')
    _, output = make('--model', 'stvit-nano', '--epochs', 1, '--batch-size', 4)
    run_main('train.py', 'out/mine.py', '--cfg-options', 'train_dataloader.num_workers=0', cwd=tmp_path)
    ((checkpoint, images),) = re.findall(r'predict.py (\S+) (\S+)', output)
    assert (tmp_path / checkpoint).is_file()
    assert not Path(images).is_absolute() and (tmp_path / images).is_dir()


def test_images_without_objects_are_said(make, tmp_path):
    coco_folder(tmp_path / 'data', 'train.json', 'train')
    coco_folder(tmp_path / 'data', 'val.json', 'val', seed=50)
    content = json.loads((tmp_path / 'data/train.json').read_text())
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] > 2]
    dump(tmp_path / 'data/train.json', content)
    _, output = make('--batch-size', 1, '--epochs', 2)
    assert '2 of which have no object' in output
    assert '2 epochs of 3 iterations' in output


def test_test_set_without_annotations_is_for_prediction(make, tmp_path):
    roboflow(tmp_path / 'data')
    content = json.loads((tmp_path / 'data/test/_annotations.coco.json').read_text())
    dump(tmp_path / 'data/test/_annotations.coco.json', {**content, 'annotations': []})
    cfg, output = make()
    assert '5 images without annotations' in output
    assert inner(cfg, 'test').ann_file == inner(cfg, 'val').ann_file
