"""Defects of instance data (MMDetection), without the shapes that exporters write."""

import json
import shutil
from pathlib import Path

from mmengine.config import Config

from .case import FOLDER, Case, change_coco
from .coco_defects import find

CASES: list[Case] = []
TRAIN, VAL = str(FOLDER / 'train.json'), str(FOLDER / 'val.json')
BOTH = 'train', 'val'
NAMES = 'categories and classes differ'


def fault(what: str, plant, kind: str, *words: str, alone: bool = True) -> None:
    CASES.append(Case(what, 'mmdet', plant, kind, words, alone=alone))


def warning(what: str, plant, kind: str, *words: str) -> None:
    CASES.append(Case(what, 'mmdet', plant, kind, words, 'warning'))


def half_of_a_file(_cfg: Config) -> None:
    Path(TRAIN).write_text(Path(TRAIN).read_text()[:-100])


def rename(**names: str):
    """Return a function that renames categories."""

    def change(content: dict) -> None:
        for category in content['categories']:
            category['name'] = names.get(category['name'], category['name'])

    return change


def set_all(**fields: object):
    return lambda content: [annotation.update(fields) for annotation in content['annotations']]


def set_first(**fields: object):
    return lambda content: content['annotations'][1].update(fields)


def classes(*names: str, **options: object):
    """Return a function that sets the class names of both splits."""

    def plant(cfg: Config) -> None:
        for split in BOTH:
            cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=names)

    return plant


def only_train_has_names(cfg: Config) -> None:
    del cfg.val_dataloader.dataset['metainfo']


def no_names(cfg: Config) -> None:
    del cfg.train_dataloader.dataset['metainfo']


def three_names(cfg: Config) -> None:
    """Misspell the second of three names, so that the third has the label of the second."""
    change_coco(lambda c: c['categories'].append(dict(id=3, name='knife')), *BOTH)(cfg)
    change_coco(rename(a='fork', b='spoon'), *BOTH)(cfg)
    classes('fork', 'spoons', 'knife')(cfg)
    for head in cfg.model.roi_head.values():
        head.num_classes = 3


def other_annotations(cfg: Config) -> None:
    """Let the evaluator read a file with the same ids and other objects."""
    content = json.loads(Path(VAL).read_text())
    set_all(bbox=[0, 0, 3, 3])(content)
    (FOLDER / 'other.json').write_text(json.dumps(content))
    cfg.val_evaluator.ann_file = str(FOLDER / 'other.json')


def turned_by_exif(_cfg: Config) -> None:
    """Save an image upright with an EXIF orientation that turns it."""
    from PIL import Image

    path = FOLDER / 'train' / '1.jpg'
    image = Image.open(path)
    exif = image.getexif()
    exif[274] = 6
    image.save(path, exif=exif)


def boxes_only(cfg: Config) -> None:
    """Make a config of boxes alone."""
    for split in BOTH:
        cfg[f'{split}_dataloader'].dataset.pipeline[1].with_mask = False
    cfg.val_evaluator.metric = 'bbox'


def wrong_size_of_boxes(cfg: Config) -> None:
    boxes_only(cfg)
    del cfg.model.roi_head['mask_head']
    change_coco(lambda c: c['images'][1].update(height=25))(cfg)


def delete_image(split: str):
    return lambda _cfg: (FOLDER / split / '2.jpg').unlink()


def train_is_val(cfg: Config) -> None:
    dataset = cfg.val_dataloader.dataset
    dataset.ann_file, dataset.data_prefix = 'train.json', dict(img='train/')
    cfg.val_evaluator.ann_file = TRAIN
    shutil.rmtree(FOLDER / 'val')


def crowd(content: dict) -> None:
    """Put many objects into one image."""
    first = content['annotations'][0]
    content['annotations'] += [{**first, 'id': 10 + i} for i in range(5)]


def few_outside(content: dict) -> None:
    """Extend one box beyond its image, of more than ten."""
    content['annotations'][1].update(bbox=[4, 5, 40, 6])
    content['annotations'] += [{**content['annotations'][3], 'id': 10 + i} for i in range(10)]


def no_masks_loaded(cfg: Config) -> None:
    cfg.train_dataloader.dataset.pipeline[1].with_mask = False


def no_mask_head(cfg: Config) -> None:
    del cfg.model.roi_head['mask_head']
    boxes_only(cfg)
    cfg.val_evaluator.metric = ['bbox', 'segm']


def several_causes(cfg: Config) -> None:
    change_coco(set_all(segmentation=[]))(cfg)
    (FOLDER / 'val' / '2.jpg').unlink()


def crowded(cfg: Config) -> None:
    change_coco(crowd, 'val')(cfg)
    cfg.model.test_cfg = dict(rcnn=dict(max_per_img=2))


def set_second_image(**fields: object):
    return change_coco(lambda content: content['images'][1].update(fields))


# fmt: off
fault('a category twice', change_coco(find('a category twice').plant), 'duplicate category', TRAIN)
fault('a misspelt name', classes('a', 'bee'), NAMES, "'bee'", VAL, 'val_dataloader.dataset',
      alone=False)
fault('a misspelt name among three', three_names, NAMES, "'spoons'", "Did you mean 'spoon'",
      alone=False)
fault('names in another order', classes('b', 'a'), NAMES, "'b'", TRAIN, 'metainfo', alone=False)
fault('no name of the file', classes('x', 'y'), NAMES, "'x', 'y'", "'a', 'b'", alone=False)
fault('no names in train', no_names, NAMES, "'person'", "'a', 'b'",
      'train_dataloader.dataset.metainfo')
fault('names in train only', only_train_has_names, NAMES, 'val_dataloader.dataset', 'metainfo',
      alone=False)
fault('an evaluator of other annotations', other_annotations, 'evaluator reads other annotations', VAL, 'other.json',
      'val_evaluator.ann_file')
fault('no mask at all', change_coco(set_all(segmentation=[])), 'no mask', 'all 4', TRAIN, 'configs/faster_rcnn')
fault('no mask of one object', change_coco(set_first(segmentation=[])), 'no mask', '1 of 4', '1.jpg', 'with_mask=True')
fault("a height that is not the file's", set_second_image(height=25), 'wrong sizes in annotations', '25', TRAIN,
      '--fix')
fault('width and height exchanged', set_second_image(width=24, height=32), 'wrong sizes in annotations', '1.jpg', TRAIN,
      alone=False)
fault('an EXIF orientation', turned_by_exif, 'wrong sizes in annotations', TRAIN)
warning('a wrong size where masks do not matter', wrong_size_of_boxes, 'wrong sizes in annotations', TRAIN)
warning('boxes that are not those of the polygons', change_coco(set_first(bbox=[1, 5, 20, 17])),
        'boxes and polygons disagree', '1 of 2', 'annotation 2')
warning('boxes by their corners', change_coco(set_all(bbox=[4, 5, 14, 11])), 'boxes and polygons disagree', 'all 2',
        '[x1, y1, x2, y2]')
fault('boxes outside', change_coco(set_first(bbox=[4, 5, 40, 6])), 'boxes outside images', '1 of 4',
      'bbox [4, 5, 40, 6]', 'x1, y1, x2, y2')
warning('a box outside among many', change_coco(few_outside), 'boxes outside images', '1 of 14', 'annotation 2')
fault('RLE of another size', change_coco(set_first(segmentation=dict(size=[9, 9], counts=[81]))), 'RLE of another size',
      '1 of 3', '1.jpg')
fault('a mask head without masks', no_masks_loaded, 'no mask', 'model.roi_head.mask_head', 'with_mask=True')
fault('masks of a detector of boxes', no_mask_head, 'no mask', 'val_evaluator.metric', "'segm'", 'metric=bbox')
warning('more objects than detections', crowded, 'more objects than max_per_img', 'model.test_cfg.rcnn.max_per_img',
        'up to 6', '4 of 9', '0.56')
fault('a missing image of val', delete_image('val'), 'missing files', '1 of 4', '2.jpg', 'val_dataloader.dataset')
warning('a missing image of train', delete_image('train'), 'missing files', '1 of 4', '2.jpg', 'unreadable=skip')
warning('val is train', train_is_val, 'train images in another split', 'is too high', 'new_config.py')
fault('half of the annotations', half_of_a_file, 'unusable dataset', f'{TRAIN} is cut off at line 1', alone=False)
fault('several causes', several_causes, 'missing files', 'no mask', 'segmentation', '2.jpg', 'val_dataloader',
      alone=False)
# fmt: on
