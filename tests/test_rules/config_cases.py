"""Defects of class names, heads, segmentation maps, schedules, loaders, channels and keys of a config."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from PIL import Image

from ..test_datasets.tiny_data import HEIGHT, LIBRARIES, WIDTH, draw, write
from .case import FOLDER, Table, make_cases

Plant = Callable[[Config], object]
SPLITS = ('train', 'val')
DET, SEG, CLS = LIBRARIES
ONE_IN_FOLDER = FOLDER / 'train' / 'a'


def dataset(cfg: Config, split: str = 'train') -> ConfigDict:
    return cfg[f'{split}_dataloader'].dataset


def each(cfg: Config, **options: object) -> None:
    """Set options of both datasets."""
    for split in SPLITS:
        dataset(cfg, split).update(options)


def both(**options: object) -> Plant:
    return lambda cfg: each(cfg, **options)


def merge(**options: object) -> Plant:
    """Change settings of the config, with ``__`` for dots."""
    return lambda cfg: cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})


def of_train(**options: object) -> Plant:
    return lambda cfg: dataset(cfg).update(options)


def steps(*plants: Plant) -> Plant:
    return lambda cfg: [plant(cfg) for plant in plants]


def put(path: str, array: np.ndarray) -> Plant:
    """Write an image file."""
    return lambda _: write(FOLDER / path, array)


def save(path: str, mode: str, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Plant:
    return lambda _: Image.new(mode, size, 100).save(FOLDER / path)


def write_pages(path: Path) -> None:
    Image.new('RGB', (WIDTH, HEIGHT)).save(
        path, save_all=True, append_images=[Image.new('RGB', (WIDTH, HEIGHT), 'red')]
    )


def files(function: Callable[..., object], *paths: str) -> Plant:
    """Call a function of paths below the folder of the data."""
    return lambda _: function(*(FOLDER / path for path in paths))


def make_pipe(path: Path) -> None:
    """Replace a file by a pipe, from which a reader would wait for ever."""
    path.unlink()
    os.mkfifo(path)


def set_maps(*values: int) -> Plant:
    """Draw the maps of the training data with these values, in columns."""
    row = np.array(values)[np.arange(WIDTH) * len(values) // WIDTH]
    array = np.tile(row, (HEIGHT, 1)).astype(np.uint8 if max(values) < 256 else np.uint16)
    return steps(*(put(f'maps/train/{i}.png', array) for i in range(4)))


def reader(**options: object) -> Plant:
    return lambda cfg: [dataset(cfg, split).pipeline[0].update(options) for split in SPLITS]


def transform(**options: object) -> Plant:
    return lambda cfg: dataset(cfg).pipeline.insert(1, options)


def vanish(_cfg: Config) -> None:
    """Add files that are no images for MMPreTrain."""
    for name in ('x.jfif', 'y.JFIF', 'z.jxl', 'notes.txt'):
        (ONE_IN_FOLDER / name).write_bytes(b'')


def use_list(text: str) -> Plant:
    return lambda cfg: dataset(cfg).update(ann_file='train.txt') or (FOLDER / 'train.txt').write_text(text)


def resize_entry(_cfg: Config) -> None:
    content = json.loads((FOLDER / 'train.json').read_text())
    content['images'][1].update(width=4000, height=16)
    (FOLDER / 'train.json').write_text(json.dumps(content))


def write_xml(*names: str) -> Plant:
    """Make XML files of the training data, with these names in turn; the config's are cat and dog."""

    def plant(cfg: Config) -> None:
        (FOLDER / 'voc').mkdir()
        box = '<xmin>5</xmin><ymin>6</ymin><xmax>15</xmax><ymax>12</ymax>'
        for i in range(4):
            (FOLDER / 'voc' / f'{i}.xml').write_text(
                f'<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>'
                f'<object><name>{names[i % 2]}</name><bndbox>{box}</bndbox></object></annotation>'
            )
        (FOLDER / 'voc.txt').write_text('0\n1\n2\n3\n')
        each(cfg, metainfo=dict(classes=('cat', 'dog')))
        of_train(type='XMLDataset', ann_file='voc.txt', data_prefix=dict(sub_data_root=''), img_subdir='train')(cfg)
        of_train(ann_subdir='voc', filter_cfg=None)(cfg)
        for split in SPLITS:
            dataset(cfg, split).pipeline[1].with_mask = False
        del cfg.model.roi_head['mask_head']
        cfg.val_evaluator.metric = 'bbox'
        content = (FOLDER / 'val.json').read_text().replace('"a"', '"cat"').replace('"b"', '"dog"')
        (FOLDER / 'val.json').write_text(content)

    return plant


def train(epochs: int, *schedulers: dict) -> Plant:
    """Train for some epochs of two iterations."""
    loop, wrapper = dict(by_epoch=True, max_epochs=epochs), dict(optimizer=dict(type='SGD', lr=0.1))
    options = dict(param_scheduler=[*schedulers], train_dataloader__batch_size=2)
    return merge(train_cfg=loop, optim_wrapper=dict(type='OptimWrapper', **wrapper), **options)


def cosine(end: int) -> dict:
    return dict(type='CosineAnnealingLR', T_max=end, end=end, by_epoch=True, convert_to_iter_based=True)


# fmt: off
# Kind -> what, library, plant, words in the report and the log.
FAULTS: Table = {
    'classes and heads disagree': [
        ('heads of detectors', DET, merge(model__roi_head__bbox_head__num_classes=5), "('a', 'b')", '--cfg-options',
         'model.roi_head.bbox_head'),
        ('heads of a cascade', DET, merge(model__roi_head=dict(bbox_head=[dict(num_classes=80)] * 3)),
         'bbox_head.0.num_classes', 'bbox_head.2.num_classes'),
        ('heads of segmentors', SEG, merge(model__decode_head__num_classes=5), "('a', 'b')", 'model.decode_head'),
        ('auxiliary head', SEG, merge(model__auxiliary_head=dict(num_classes=19)),
         'model.auxiliary_head.num_classes is 19'),
        ('mask transformer', DET, merge(model__panoptic_head=dict(num_things_classes=80, num_stuff_classes=0)),
         'model.panoptic_head.num_things_classes is 80'),
        ('labels of Mixup', CLS, merge(model__data_preprocessor=dict(num_classes=1000)),
         'data_preprocessor.num_classes is 1000'),
    ],
    'top-k above the classes': [
        ('top-5 of two', CLS, merge(val_evaluator=dict(type='Accuracy', topk=(1, 5))), 'val_evaluator.topk',
         '--cfg-options'),
        ('top-5 in training', CLS, merge(model__head=dict(topk=(1, 5), cal_acc=True)), 'model.head.topk'),
    ],
    'class names are a string': [
        ('a string of detectors', DET, merge(train_dataloader__dataset__metainfo__classes='balloon'), "('balloon',)"),
        ('a string of segmentors', SEG, merge(train_dataloader__dataset__metainfo__classes='balloon'), "('balloon',)"),
        ('a string of classifiers', CLS, of_train(classes='balloon'), "('balloon',)"),
    ],
    'class names of the splits differ': [
        ('names in train only', SEG, lambda cfg: dataset(cfg, 'val').pop('metainfo'), 'val_dataloader.dataset',
         "('a', 'b')"),
        ('names in another order in val', SEG, merge(val_dataloader__dataset__metainfo__classes=['b', 'A']),
         "Did you mean 'a' for 'A'?"),
        ('folders of other classes', CLS, steps(both(classes=None), put('train/c/9.jpg', draw(9)),
                                                merge(model__head__num_classes=3)), "'c'", 'may be empty'),
    ],
    'class folders and classes differ': [
        ('a folder that val does not have', CLS, files(shutil.rmtree, 'val/b'), "no folder for 'b'"),
        ('classes in another order', CLS, of_train(classes=['b', 'a']), "('a', 'b')", "'b' in classes", 'label 0'),
        ('similar names in another order', CLS, steps(
            of_train(classes=['bee', 'ant']), files(Path.rename, 'train/a', 'train/ants'),
            files(Path.rename, 'train/b', 'train/bees')), "label 0 is the folder 'ants'"),
    ],
    'folder that is no class': [
        ('a folder of macOS', CLS, files(Path.mkdir, 'train/__MACOSX'), 'train/__MACOSX', 'Delete'),
        ('a hidden folder', CLS, steps(both(classes=None), files(Path.mkdir, 'train/.ipynb_checkpoints')),
         '.ipynb_checkpoints'),
        ('the folder above the splits', CLS, both(data_prefix='', classes=None), 'tiny/train', 'data_prefix'),
    ],
    'invalid list of files': [
        ('a header', CLS, use_list('filename label\na/0.jpg 0\nb/1.jpg 1\n'), 'line 1 has no number', '1 of 3'),
        ('a list with a comma', CLS, use_list('a/0.jpg 0\nb/1.jpg,1\nb/3.jpg, 1\n'), 'line 2 has a comma', '2 of 3'),
        ('a list with a tab', CLS, use_list('a/0.jpg 0\nb/1.jpg\t1\n'), 'line 2 has a tab', '1 of 2'),
        ('a blank line', CLS, use_list('a/0.jpg 0\n\nb/1.jpg 1\n'), 'train.txt', 'line 2 is empty', '1 of 3'),
        ('names in a list', CLS, use_list('a/0.jpg a\nb/1.jpg b\n'), 'line 1 has no number', 'all 2'),
    ],
    'only one class in the maps': [
        ('black and white', SEG, set_maps(0, 255), '0 and 255', "only 'a'", 'black and white'),
        ('a background that is ignored', SEG, of_train(reduce_zero_label=True), 'reduce_zero_label=False', "'a'"),
    ],
    'label out of range': [
        ('white is 254', SEG, set_maps(0, 127, 254), '127', '254', 'black and white', '0 to 1'),
        ('labels of 16 bits', SEG, set_maps(0, 1, 256), '256', '0 to 1'),
        ('void', SEG, set_maps(0, 1, 2), 'label 2', '0.png', 'ignore_index=2', '0 to 1'),
        ('labels from 1', SEG, set_maps(1, 2), 'reduce_zero_label=True'),
    ],
    'picture of labels': [
        ('pictures of labels', SEG, put('maps/train/1.png', draw(0)), '3 channels', '1 of 4', 'one channel'),
    ],
    'wrong segmentation map size': [
        ('a map of another size', SEG, put('maps/train/1.png', draw(0, 30, 40) % 2), '1.png', '40×30', '32×24'),
    ],
    'ignore_index differs': [
        ('an evaluator that counts void', SEG, steps(set_maps(0, 1, 2), merge(model__decode_head__ignore_index=2)),
         'val_evaluator.ignore_index=2'),
    ],
    'batch of several sizes': [
        ('a batch of several sizes', SEG, steps(
            merge(val_dataloader__batch_size=2), put('images/val/1.jpg', draw(0, 30, 40, 3)),
            put('maps/val/1.png', draw(0, 30, 40) % 2)), '1.jpg', '40×30', 'val_dataloader.batch_size=1'),
        ('a training batch of several sizes', CLS, steps(
            merge(train_dataloader__batch_size=2), put('train/a/2.jpg', draw(0, 30, 40, 3))), '40×30',
         'train_dataloader.'),
    ],
    'sliding window': [
        ('a window without stride', SEG, merge(model__test_cfg=dict(mode='slide', crop_size=(16, 16))), 'needs stride',
         'model.test_cfg'),
        ('a window with gaps', SEG, merge(model__test_cfg=dict(mode='slide', crop_size=(16, 16), stride=(20, 20))),
         '(20, 20)', '(16, 16)'),
    ],
    'channels of images': [
        ('transparency among colors', CLS, steps(reader(color_type='unchanged'), save('train/a/1.png', 'RGBA')),
         '1.png', '4 channels', 'color_type'),
        ('CMYK among colors', CLS, steps(
            reader(color_type='unchanged', imdecode_backend='pillow'), save('train/b/1.jpg', 'CMYK')), '1.jpg',
         '4 channels', 'color_type'),
    ],
    'image that the pipeline refuses': [
        ('an image without height after Resize', DET, steps(
            transform(type='Resize', scale=(80, 64), keep_ratio=True), put('train/1.jpg', draw(0, 16, 4000, 3)),
            resize_entry), '1.jpg (4000×16', 'crop or convert'),
    ],
    'unreadable file': [
        ('too many pixels', CLS, save('train/a/9.png', '1', (20000, 10000)), '9.png', '20000 × 10000 pixels'),
    ],
}
# The plant is in both splits, or there are other faults, too.
MORE_FAULTS: Table = {
    'unusable dataset': [
        ('a name that ADE20K does not have', SEG, both(
            type='ADE20KDataset', metainfo=dict(classes=['wal', 'sky']), reduce_zero_label=True), 'wal',
         'is not a subset'),
        ('no name of XML files', DET, write_xml('Horse', 'Cow'), 'train_dataloader.dataset'),
    ],
    'image that the pipeline refuses': [
        ('bands for a transform', CLS, steps(
            reader(color_type='unchanged'), save('train/a/9.png', 'RGBA'),
            transform(type='Lighting', eigval=[1, 1, 1], eigvec=[[1, 0, 0]] * 3)), '9.png', '4 channels',
         "color_type='color'"),
    ],
}
WARNINGS: Table = {
    'class folders and classes differ': [
        ('a misspelt folder', CLS, both(classes=['a', 'c']), "'c'", "label 1 is the folder 'b'"),
    ],
    'unused file': [
        ('files that vanish', CLS, vanish, 'x.jfif', 'y.JFIF', 'z.jxl', '3 of 7', 'extensions'),
        ('images of another suffix', SEG, files(Path.rename, 'images/train/0.jpg', 'images/train/0.jpeg'), '0.jpeg',
         '1 of 4', 'img_suffix'),
    ],
    'unknown name in XML files': [
        ('another case in XML', DET, write_xml('Cat', 'dog'), "'Cat': 2 objects", "Did you mean 'Cat' for 'cat'?",
         '1 of 2'),
    ],
    'reduce_zero_label': [
        ('a class that is ignored', SEG, steps(
            set_maps(0, 1, 2), both(metainfo=dict(classes=['a', 'b', 'c'])), of_train(reduce_zero_label=True),
            merge(model__decode_head__num_classes=3)), 'label 3', 'reduce_zero_label=False'),
    ],
    'most pixels are ignored': [
        ('pixels without labels', SEG, set_maps(0, 1, 255, 255, 255, 255), '65.6%', '255'),
    ],
    'schedule and length disagree': [
        ('a long warm-up', DET, train(2, dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100)),
         'param_scheduler.0', '100', '4 iterations'),
        ('a short cosine', DET, train(6, cosine(3)), 'param_scheduler.0', 'ends at 3', '6 epochs'),
        ('a long cosine', CLS, train(6, cosine(12)), 'ends at 12', '6 epochs'),
        ('late milestones', SEG, train(6, dict(type='MultiStepLR', milestones=[8, 11], by_epoch=True)),
         '[8, 11] are not reached'),
        ('a long cycle', DET, train(2, dict(type='OneCycleLR', eta_max=0.1, total_steps=100, by_epoch=False)),
         'param_scheduler.0', 'OneCycleLR', '100', 'of 4 iterations'),
    ],
    'black 16-bit image': [
        ('12 of 16 bits', CLS, put('train/a/deep.png', draw(0, HEIGHT, WIDTH).astype(np.uint16) * 16), '1 of 1',
         'deep.png', '12 bits'),
    ],
    'pages that are not read': [
        ('two pages', CLS, files(write_pages, 'train/a/pages.tif'), 'has several pages', 'each page as a file'),
    ],
    'key without effect': [
        ('mixed precision of 2.x', DET, merge(fp16=dict(loss_scale=512.0)), 'fp16', '--amp'),
        ('data of 2.x', SEG, merge(data=dict(samples_per_gpu=2)), 'data: ', 'train_dataloader', 'batch_size'),
        ('optimizer of 2.x', CLS, merge(optimizer=dict(lr=0.1)), 'optim_wrapper.optimizer'),
        ('a misspelt key', DET, merge(train_dataloder=dict(batch_size=4)), 'train_dataloder',
         'Did you mean train_dataloader?'),
    ],
}
# fmt: on
CASES = make_cases(FAULTS, MORE_FAULTS, WARNINGS)
