"""Defects of class names, heads, segmentation maps, schedules, loaders, channels and keys of a config."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mmengine.config import Config, ConfigDict
from PIL import Image

from ..test_datasets.tiny_data import HEIGHT, LIBRARIES, WIDTH, draw, images, write
from .case import FOLDER, Case

Change = Callable[[Config, Path], object]
CASES: list[Case] = []
SPLITS = ('train', 'val')
FAULT, WARNING = 'fault', 'warning'


def case(
    what: str, library: str, kind: str, severity: str, *words: str, alone: bool = True
) -> Callable[[Change], None]:
    """Add a case; returns a decorator for the function that plants it. Not ``alone``: both splits have it."""
    return lambda change: CASES.append(
        Case(what, library, lambda cfg: change(cfg, FOLDER), kind, words, severity, alone)
    )


def dataset(cfg: Config, split: str = 'train') -> ConfigDict:
    return cfg[f'{split}_dataloader'].dataset


def each(cfg: Config, **options: object) -> None:
    """Set options of both datasets."""
    for split in SPLITS:
        dataset(cfg, split).update(options)


def merge(**options: object) -> Change:
    """Change settings of the config, with ``__`` for dots."""
    return lambda cfg, _: cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})


def maps(folder: Path, split: str = 'train') -> list[Path]:
    return sorted((folder / 'maps' / split).iterdir())


def set_maps(*values: int) -> Change:
    """Draw the maps of the training data with these values, in columns."""

    def change(_: Config, folder: Path) -> None:
        row = np.array(values)[np.arange(WIDTH) * len(values) // WIDTH]
        for path in maps(folder):
            write(path, np.tile(row, (HEIGHT, 1)).astype(np.uint8 if max(values) < 256 else np.uint16))

    return change


# Heads.

for library, heads in {
    'mmdet': ('model.roi_head.bbox_head', 'model.roi_head.mask_head'),
    'mmseg': ('model.decode_head',),
    'mmpretrain': ('model.head',),
}.items():

    @case(f'heads of {library}', library, 'classes and heads disagree', FAULT, "('a', 'b')", '--cfg-options', *heads)
    def _(cfg: Config, _folder: Path, heads: tuple[str, ...] = heads) -> None:
        cfg.merge_from_dict({f'{key}.num_classes': 5 for key in heads})


@case('heads of a cascade', 'mmdet', 'classes and heads disagree', FAULT, *(f'bbox_head.{i}.num_classes' for i in '02'))
def _(cfg: Config, _folder: Path) -> None:
    cfg.model.roi_head = dict(bbox_head=[dict(num_classes=80)] * 3, mask_head=dict(num_classes=80))


case('auxiliary head', 'mmseg', 'classes and heads disagree', FAULT, 'model.auxiliary_head.num_classes is 19')(
    merge(model__auxiliary_head=dict(num_classes=19))
)
case('mask transformer', 'mmdet', 'classes and heads disagree', FAULT, 'model.panoptic_head.num_things_classes is 80')(
    merge(model__panoptic_head=dict(num_things_classes=80, num_stuff_classes=0))
)
case('labels of Mixup', 'mmpretrain', 'classes and heads disagree', FAULT, 'data_preprocessor.num_classes is 1000')(
    merge(model__data_preprocessor=dict(num_classes=1000))
)
case('top-5 of two', 'mmpretrain', 'top-k above the classes', FAULT, 'val_evaluator.topk', '--cfg-options')(
    merge(val_evaluator=dict(type='Accuracy', topk=(1, 5)))
)
case('top-5 in training', 'mmpretrain', 'top-k above the classes', FAULT, 'model.head.topk')(
    merge(model__head=dict(topk=(1, 5), cal_acc=True))
)


# Class names.

for library in LIBRARIES:

    @case(f'a string of {library}', library, 'class names are a string', FAULT, "('balloon',)")
    def _(cfg: Config, _folder: Path, library: str = library) -> None:
        names = dict(classes='balloon')
        dataset(cfg).update(names if library == 'mmpretrain' else dict(metainfo=names))


@case('names in train only', 'mmseg', 'class names of the splits differ', FAULT, 'val_dataloader.dataset', "('a', 'b')")
def _(cfg: Config, _folder: Path) -> None:
    dataset(cfg, 'val').pop('metainfo')


@case('another order in val', 'mmseg', 'class names of the splits differ', FAULT, "('b', 'a')")
def _(cfg: Config, _folder: Path) -> None:
    dataset(cfg, 'val').metainfo.classes = ['b', 'a']


@case('a misspelt name in val', 'mmseg', 'class names of the splits differ', FAULT, "'spoons'", "Did you mean 'spoon'")
def _(cfg: Config, _folder: Path) -> None:
    dataset(cfg).metainfo.classes = ['fork', 'spoon']
    dataset(cfg, 'val').metainfo.classes = ['fork', 'spoons']


@case('a name that ADE20K does not have', 'mmseg', 'unknown class', FAULT, "'wal'", "Did you mean 'wall'", alone=False)
def _(cfg: Config, _folder: Path) -> None:
    each(cfg, type='ADE20KDataset', metainfo=dict(classes=['wal', 'sky']), reduce_zero_label=True)


@case('folders of other classes', 'mmpretrain', 'class names of the splits differ', FAULT, "'c'", 'may be empty')
def _(cfg: Config, folder: Path) -> None:
    each(cfg, classes=None)
    cfg.model.head.num_classes = 3
    write(folder / 'train' / 'c' / '9.jpg', draw(9))


@case('a folder that val does not have', 'mmpretrain', 'class folders and classes differ', FAULT, "no folder for 'b'")
def _(_cfg: Config, folder: Path) -> None:
    shutil.rmtree(folder / 'val' / 'b')


@case('classes in another order', 'mmpretrain', 'order of classes', FAULT, "('a', 'b')", "'b' in classes", 'label 0')
def _(cfg: Config, _folder: Path) -> None:
    dataset(cfg).classes = ['b', 'a']


@case('similar names in another order', 'mmpretrain', 'order of classes', FAULT, "label 0 is the folder 'ants'")
def _(cfg: Config, folder: Path) -> None:
    dataset(cfg).classes = ['bee', 'ant']
    (folder / 'train' / 'a').rename(folder / 'train' / 'ants')
    (folder / 'train' / 'b').rename(folder / 'train' / 'bees')


@case('a misspelt folder', 'mmpretrain', 'misspelt class name', WARNING, "'c'", 'label 1, but the folder')
def _(cfg: Config, _folder: Path) -> None:
    each(cfg, classes=['a', 'c'])


@case('a folder of macOS', 'mmpretrain', 'system folder as a class', FAULT, 'train/__MACOSX')
def _(_cfg: Config, folder: Path) -> None:
    (folder / 'train' / '__MACOSX').mkdir()


@case('a hidden folder', 'mmpretrain', 'system folder as a class', FAULT, '.ipynb_checkpoints')
def _(cfg: Config, folder: Path) -> None:
    each(cfg, classes=None)
    (folder / 'train' / '.ipynb_checkpoints').mkdir()


@case('the folder above the splits', 'mmpretrain', 'splits as classes', FAULT, "'train', 'val'", 'data_prefix')
def _(cfg: Config, _folder: Path) -> None:
    each(cfg, data_prefix='', classes=None)


@case('files that vanish', 'mmpretrain', 'file with another suffix', WARNING, '2 .jfif', '1 .heic', 'extensions')
def _(_cfg: Config, folder: Path) -> None:
    for name in ('x.jfif', 'y.JFIF', 'z.heic', 'notes.txt'):
        (folder / 'train' / 'a' / name).write_bytes(b'')


@case('images of another suffix', 'mmseg', 'file with another suffix', WARNING, '1 .jpeg', 'img_suffix')
def _(_cfg: Config, folder: Path) -> None:
    images('mmseg', folder, 'train')[0].rename(folder / 'images' / 'train' / '0.jpeg')


for library in ('mmdet', 'mmseg'):
    case(f'few colors in {library}', library, 'palette too short', FAULT, 'metainfo.palette', '1 colors', '2 classes')(
        merge(train_dataloader__dataset__metainfo__palette=[(0, 0, 0)])
    )


@case('a header', 'mmpretrain', 'invalid list of files', FAULT, 'train.txt', 'line 1', 'no number', '1 of 3')
def _(cfg: Config, folder: Path) -> None:
    use_list(cfg, folder, 'filename label\na/0.jpg 0\nb/1.jpg 1\n')


for mark, words in {',': 'a comma', ', ': 'a comma', '\t': 'a tab'}.items():

    @case(f'a list with {mark!r}', 'mmpretrain', 'invalid list of files', FAULT, 'line 2', words, '2 of 3')
    def _(cfg: Config, folder: Path, mark: str = mark) -> None:
        use_list(cfg, folder, f'a/0.jpg 0\nb/1.jpg{mark}1\nb/3.jpg{mark}1\n')


@case('a blank line', 'mmpretrain', 'invalid list of files', FAULT, 'line 2', 'is empty', '1 of 3')
def _(cfg: Config, folder: Path) -> None:
    use_list(cfg, folder, 'a/0.jpg 0\n\nb/1.jpg 1\n')


@case('names in a list', 'mmpretrain', 'invalid list of files', FAULT, 'all 2', 'line 1', 'no number')
def _(cfg: Config, folder: Path) -> None:
    use_list(cfg, folder, 'a/0.jpg a\nb/1.jpg b\n')


def use_list(cfg: Config, folder: Path, text: str) -> None:
    (folder / 'train.txt').write_text(text)
    dataset(cfg).update(ann_file='train.txt')


XML = 'unknown name in XML files'


@case('another case in XML', 'mmdet', XML, WARNING, "'Cat': 2 objects", "Did you mean 'Cat' for 'cat'?", '1 of 2')
def _(cfg: Config, folder: Path) -> None:
    write_xml(cfg, folder, ['Cat', 'dog'])


@case('no name of XML files', 'mmdet', 'unusable dataset', FAULT, 'train_dataloader.dataset', alone=False)
def _(cfg: Config, folder: Path) -> None:
    write_xml(cfg, folder, ['Horse', 'Cow'])


def write_xml(cfg: Config, folder: Path, names: list[str]) -> None:
    """Make XML files of the training data, with these names in turn; the config's are cat and dog."""
    (folder / 'voc').mkdir()
    for i in range(4):
        box = '<xmin>5</xmin><ymin>6</ymin><xmax>15</xmax><ymax>12</ymax>'
        (folder / 'voc' / f'{i}.xml').write_text(
            f'<annotation><size><width>{WIDTH}</width><height>{HEIGHT}</height></size>'
            f'<object><name>{names[i % 2]}</name><bndbox>{box}</bndbox></object></annotation>'
        )
    (folder / 'voc.txt').write_text('0\n1\n2\n3\n')
    data = cfg.train_dataloader.dataset
    data.update(type='XMLDataset', ann_file='voc.txt', data_prefix=dict(sub_data_root=''), img_subdir='train')
    data.update(ann_subdir='voc', filter_cfg=None)
    data.pipeline[1].with_mask = False
    for split in SPLITS:
        dataset(cfg, split).metainfo = dict(classes=('cat', 'dog'))
    del cfg.model.roi_head['mask_head']
    content = (folder / 'val.json').read_text().replace('"a"', '"cat"').replace('"b"', '"dog"')
    (folder / 'val.json').write_text(content)
    cfg.val_evaluator.metric = 'bbox'
    cfg.val_dataloader.dataset.pipeline[1].with_mask = False


# Segmentation maps.

case('black and white', 'mmseg', 'only one class in the maps', FAULT, '0, 255', "only 'a'", 'black and white')(
    set_maps(0, 255)
)
case('white is 254', 'mmseg', 'label out of range', FAULT, '127', '254', 'black and white', '0 to 1')(
    set_maps(0, 127, 254)
)
case('labels of 16 bits', 'mmseg', 'label out of range', FAULT, '256', '0 to 1')(set_maps(0, 1, 256))
case('void', 'mmseg', 'label out of range', FAULT, 'label 2', '0.png', 'ignore_index=2', '0 to 1')(set_maps(0, 1, 2))
case('labels from 1', 'mmseg', 'label out of range', FAULT, 'reduce_zero_label=True')(set_maps(1, 2))


@case('a background that is ignored', 'mmseg', 'only one class in the maps', FAULT, 'reduce_zero_label=False', "'a'")
def _(cfg: Config, _folder: Path) -> None:
    dataset(cfg).reduce_zero_label = True


@case('a class that is ignored', 'mmseg', 'reduce_zero_label', WARNING, 'label 3', 'reduce_zero_label=False')
def _(cfg: Config, folder: Path) -> None:
    set_maps(0, 1, 2)(cfg, folder)
    each(cfg, metainfo=dict(classes=['a', 'b', 'c']))
    dataset(cfg).reduce_zero_label = True
    cfg.model.decode_head.num_classes = 3


@case('pictures of labels', 'mmseg', 'picture of labels', FAULT, '3 channels', '1 of 4', 'one channel')
def _(_cfg: Config, folder: Path) -> None:
    write(maps(folder)[1], draw(0))


@case('a map of another size', 'mmseg', 'wrong segmentation map size', FAULT, '1.png', '40×30', '32×24')
def _(_cfg: Config, folder: Path) -> None:
    write(maps(folder)[1], draw(0, 30, 40) % 2)


@case('pixels without labels', 'mmseg', 'most pixels are ignored', WARNING, '65.6%', '255')
def _(cfg: Config, folder: Path) -> None:
    set_maps(0, 1, 255, 255, 255, 255)(cfg, folder)


@case('an evaluator that counts void', 'mmseg', 'ignore_index differs', FAULT, 'val_evaluator.ignore_index=2')
def _(cfg: Config, folder: Path) -> None:
    set_maps(0, 1, 2)(cfg, folder)
    cfg.model.decode_head.ignore_index = 2
    cfg.val_evaluator = dict(type='IoUMetric')


# Schedules. An epoch has two iterations.

WARM_UP = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100)


def train(epochs: int, *schedulers: dict) -> Change:
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1))
    return merge(
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=wrapper,
        param_scheduler=[*schedulers],
        train_dataloader__batch_size=2,
    )


def cosine(end: int) -> dict:
    return dict(type='CosineAnnealingLR', T_max=end, end=end, by_epoch=True, convert_to_iter_based=True)


LENGTH = 'schedule and length disagree'
case('a long warm-up', 'mmdet', LENGTH, WARNING, 'param_scheduler.0', '100', '4 iterations', '0.004')(train(2, WARM_UP))
case('a short cosine', 'mmdet', LENGTH, WARNING, 'param_scheduler.0', 'ends at 3', '6 epochs', '0.0067 at the end')(
    train(6, cosine(3))
)
case('a long cosine', 'mmpretrain', LENGTH, WARNING, 'ends at 12', '6 epochs', '0.0565 at the end')(
    train(6, cosine(12))
)
case('late milestones', 'mmseg', LENGTH, WARNING, '[8, 11]', '[8, 11] are not reached', '0.1 at the end')(
    train(6, dict(type='MultiStepLR', milestones=[8, 11], by_epoch=True))
)
case('a long cycle', 'mmdet', LENGTH, WARNING, 'param_scheduler.0', 'OneCycleLR', '100', 'of 4 iterations')(
    train(2, dict(type='OneCycleLR', eta_max=0.1, total_steps=100, by_epoch=False))
)
case('a warm-up of the classifiers', 'mmpretrain', LENGTH, FAULT, 'warms up for 5 epochs', 'param_scheduler.0')(
    train(2, dict(type='mmstvit.WarmupCosineLR', warmup_epochs=5))
)


# Loaders and heads of segmentors.


@case(
    'a batch of several sizes',
    'mmseg',
    'batch of several sizes',
    FAULT,
    '1.jpg',
    '40×30',
    'val_dataloader.batch_size=1',
)
def _(cfg: Config, folder: Path) -> None:
    cfg.val_dataloader.batch_size = 2
    write(images('mmseg', folder, 'val')[1], draw(0, 30, 40, 3))
    write(maps(folder, 'val')[1], draw(0, 30, 40) % 2)


@case('a training batch of several sizes', 'mmpretrain', 'batch of several sizes', FAULT, '40×30', 'train_dataloader.')
def _(cfg: Config, folder: Path) -> None:
    cfg.train_dataloader.batch_size = 2
    write(images('mmpretrain', folder, 'train')[1], draw(0, 30, 40, 3))


case('a window without stride', 'mmseg', 'sliding window', FAULT, 'needs stride', 'model.test_cfg')(
    merge(model__test_cfg=dict(mode='slide', crop_size=(16, 16)))
)
case('a window with gaps', 'mmseg', 'sliding window', FAULT, '(20, 20)', '(16, 16)')(
    merge(model__test_cfg=dict(mode='slide', crop_size=(16, 16), stride=(20, 20)))
)
POOLED = dict(type='UPerHead', num_classes=2, norm_cfg=dict(type='BN'))
case('one image', 'mmseg', 'BatchNorm of one image', FAULT, 'model.decode_head', 'train_dataloader.batch_size=2', 'GN')(
    merge(model__decode_head=POOLED, train_dataloader__batch_size=1)
)
case('one image at the end', 'mmseg', 'BatchNorm of one image', FAULT, 'train_dataloader.drop_last=True')(
    merge(model__decode_head=POOLED, train_dataloader__batch_size=3)
)


# Channels and bits.


def save(path: Path, mode: str) -> None:
    Image.new(mode, (WIDTH, HEIGHT), 100).save(path)


def set_reader(cfg: Config, **options: object) -> None:
    for split in SPLITS:
        dataset(cfg, split).pipeline[0].update(options)


@case('transparency among colors', 'mmpretrain', 'channels of images', FAULT, '1.png', '4 channels', 'color_type')
def _(cfg: Config, folder: Path) -> None:
    set_reader(cfg, color_type='unchanged')
    save(folder / 'train' / 'a' / '1.png', 'RGBA')


# Images that the pipeline cannot take.

REFUSED = 'image that the pipeline refuses'


def narrow(cfg: Config, folder: Path, path: str) -> None:
    dataset(cfg).pipeline.insert(1, dict(type='Resize', scale=(80, 64), keep_ratio=True))
    write(folder / path, draw(0, 16, 4000, 3))


@case('an image without height after Resize', 'mmdet', REFUSED, FAULT, '1.jpg (4000×16', 'crop or convert')
def _(cfg: Config, folder: Path) -> None:
    narrow(cfg, folder, 'train/1.jpg')
    content = json.loads((folder / 'train.json').read_text())
    content['images'][1].update(width=4000, height=16)
    (folder / 'train.json').write_text(json.dumps(content))


@case('a narrow image of segments', 'mmseg', REFUSED, FAULT, '1.jpg (4000×16', 'crop or convert')
def _(cfg: Config, folder: Path) -> None:
    narrow(cfg, folder, 'images/train/1.jpg')
    write(maps(folder)[1], draw(0, 16, 4000) % 2)


@case('too many pixels', 'mmpretrain', 'unreadable image', FAULT, '9.png', '20000 × 10000 pixels')
def _(cfg: Config, folder: Path) -> None:
    Image.new('1', (20000, 10000)).save(folder / 'train' / 'a' / '9.png')


@case('bands for a transform', 'mmpretrain', REFUSED, FAULT, '9.png', '4 channels', "color_type='color'", alone=False)
def _(cfg: Config, folder: Path) -> None:
    set_reader(cfg, color_type='unchanged')
    dataset(cfg).pipeline.insert(1, dict(type='Lighting', eigval=[1, 1, 1], eigvec=[[1, 0, 0]] * 3))
    save(folder / 'train' / 'a' / '9.png', 'RGBA')


@case('CMYK among colors', 'mmpretrain', 'channels of images', FAULT, '1.jpg', '4 channels (CMYK', 'color_type')
def _(cfg: Config, folder: Path) -> None:
    set_reader(cfg, color_type='unchanged', imdecode_backend='pillow')
    save(folder / 'train' / 'b' / '1.jpg', 'CMYK')


@case(
    'three means for four bands', 'mmpretrain', 'channels of images', FAULT, '0.png', 'mean has 3 values', alone=False
)
def _(cfg: Config, folder: Path) -> None:
    set_reader(cfg, color_type='unchanged')
    for path in [*images('mmpretrain', folder, 'train'), *images('mmpretrain', folder, 'val')]:
        path.unlink()
        save(path.with_suffix('.png'), 'RGBA')
    cfg.model.data_preprocessor = dict(mean=[1, 2, 3], std=[1, 1, 1])
    cfg.model.backbone = dict(type='mmstvit.STViT', in_channels=4)


@case('a backbone of four', 'mmdet', 'channels of images', FAULT, 'in_channels is 4', '3 channels', 'mean', alone=False)
def _(cfg: Config, _folder: Path) -> None:
    cfg.model.data_preprocessor = dict(mean=[1, 2, 3], std=[1, 1, 1])
    cfg.model.backbone = dict(type='mmstvit.STViT', in_channels=4)


@case('12 of 16 bits', 'mmpretrain', 'black 16-bit image', WARNING, '1 of 1', 'deep.png', '12 bits')
def _(_cfg: Config, folder: Path) -> None:
    write(folder / 'train' / 'a' / 'deep.png', draw(0, HEIGHT, WIDTH).astype(np.uint16) * 16)


# Keys of the config.

KEY = 'key without effect'
case('mixed precision of 2.x', 'mmdet', KEY, WARNING, 'fp16', '--amp')(merge(fp16=dict(loss_scale=512.0)))
case('data of 2.x', 'mmseg', KEY, WARNING, 'data: ', 'train_dataloader', 'batch_size')(
    merge(data=dict(samples_per_gpu=2))
)
case('optimizer of 2.x', 'mmpretrain', KEY, WARNING, 'optim_wrapper.optimizer')(merge(optimizer=dict(lr=0.1)))
case('rate of 2.x', 'mmpretrain', KEY, WARNING, 'param_scheduler')(merge(lr_config=dict(policy='step')))
case('a misspelt key', 'mmdet', KEY, WARNING, 'train_dataloder', 'Did you mean train_dataloader?')(
    merge(train_dataloder=dict(batch_size=4))
)
