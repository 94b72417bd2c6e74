"""Defects of instance data (MMDetection), without the shapes that exporters write."""

import json
import shutil
from pathlib import Path

from mmengine.config import Config
from PIL import Image

from .case import FOLDER, Table, change_coco, make_cases
from .coco_defects import find
from .config_cases import DET, SPLITS, Plant, both, dataset, files, make_pipe, merge, steps

TRAIN, VAL = str(FOLDER / 'train.json'), str(FOLDER / 'val.json')


def half_of_a_file(_cfg: Config) -> None:
    Path(TRAIN).write_text(Path(TRAIN).read_text()[:-100])


def rename(**names: str) -> Plant:
    """Rename categories."""
    return change_coco(lambda c: [k.update(name=names.get(k['name'], k['name'])) for k in c['categories']], *SPLITS)


def all_objects(**fields: object) -> Plant:
    return change_coco(lambda content: [annotation.update(fields) for annotation in content['annotations']])


def one_object(**fields: object) -> Plant:
    return change_coco(lambda content: content['annotations'][1].update(fields))


def second_image(**fields: object) -> Plant:
    return change_coco(lambda content: content['images'][1].update(fields))


def repeat(position: int, count: int) -> Plant:
    """Add copies of an object."""
    return lambda content: content['annotations'].extend(
        [{**content['annotations'][position], 'id': 10 + i} for i in range(count)]
    )


def classes(*names: str) -> Plant:
    return both(metainfo=dict(classes=names))


def without_names(split: str) -> Plant:
    return lambda cfg: dataset(cfg, split).pop('metainfo')


def other_annotations(cfg: Config) -> None:
    """Let the evaluator read a file with the same ids and other objects."""
    content = json.loads(Path(VAL).read_text())
    for annotation in content['annotations']:
        annotation['bbox'] = [0, 0, 3, 3]
    (FOLDER / 'other.json').write_text(json.dumps(content))
    cfg.val_evaluator.ann_file = str(FOLDER / 'other.json')


def turned_by_exif(_cfg: Config) -> None:
    """Save an image upright with an EXIF orientation that turns it."""
    path = FOLDER / 'train' / '1.jpg'
    image = Image.open(path)
    exif = image.getexif()
    exif[274] = 6
    image.save(path, exif=exif)


def load_masks(wanted: bool, *splits: str) -> Plant:
    return lambda cfg: [dataset(cfg, split).pipeline[1].update(with_mask=wanted) for split in splits]


def no_mask_head(cfg: Config) -> None:
    del cfg.model.roi_head['mask_head']
    load_masks(False, *SPLITS)(cfg)


def train_is_val(cfg: Config) -> None:
    dataset(cfg, 'val').update(ann_file='train.json', data_prefix=dict(img='train/'))
    cfg.val_evaluator.ann_file = TRAIN
    shutil.rmtree(FOLDER / 'val')


def train_in_val(cfg: Config) -> None:
    """Make the validation images and annotations copies of those for training."""
    shutil.rmtree(FOLDER / 'val')
    shutil.copytree(FOLDER / 'train', FOLDER / 'val')
    shutil.copy(FOLDER / 'train.json', FOLDER / 'val.json')


# fmt: off
three_names = steps(change_coco(lambda c: c['categories'].append(dict(id=3, name='knife')), *SPLITS),
                    rename(a='fork', b='spoon'), classes('fork', 'spoons', 'knife'),
                    merge(model__roi_head__bbox_head__num_classes=3, model__roi_head__mask_head__num_classes=3))
# Kind -> what, plant, words in the report and the log.
FAULTS: Table = {
    'duplicate category': [('a category twice', DET, change_coco(find('a category twice').plant), TRAIN)],
    'categories and classes differ': [
        ('no names in train', DET, without_names('train'), "'person'", "'a', 'b'", 'train_dataloader.dataset.metainfo'),
    ],
    'evaluator reads other annotations': [
        ('an evaluator of other annotations', DET, other_annotations, VAL, 'other.json', 'val_evaluator.ann_file'),
    ],
    'no mask': [
        ('no mask at all', DET, all_objects(segmentation=[]), 'all 4', TRAIN, 'configs/faster_rcnn'),
        ('no mask of one object', DET, one_object(segmentation=[]), '1 of 4', '1.jpg', 'with_mask=True'),
        ('a mask head without masks', DET, load_masks(False, 'train'), 'model.roi_head.mask_head', 'with_mask=True'),
        ('masks of a detector of boxes', DET, no_mask_head, 'val_evaluator.metric', "'segm'", 'metric=bbox'),
    ],
    'wrong sizes in annotations': [
        ("a height that is not the file's", DET, second_image(height=25), '25', TRAIN, '--fix'),
        ('an EXIF orientation', DET, turned_by_exif, TRAIN),
    ],
    'boxes outside images': [
        ('boxes outside', DET, one_object(bbox=[4, 5, 40, 6]), '1 of 4', 'bbox [4, 5, 40, 6]', 'x1, y1, x2, y2'),
    ],
    'RLE of another size': [
        ('RLE of another size', DET, one_object(segmentation=dict(size=[9, 9], counts=[81])), '1 of 3', '1.jpg'),
    ],
    'missing files': [('a missing image of val', DET, files(Path.unlink, 'val/2.jpg'), '1 of 4', '2.jpg',
                       'val_dataloader.dataset')],
}
# There are other faults, too.
MORE_FAULTS: Table = {
    'categories and classes differ': [
        ('a misspelt name', DET, classes('a', 'bee'), "'bee'", VAL, 'val_dataloader.dataset'),
        ('a misspelt name among three', DET, three_names, "'spoons'", "Did you mean 'spoon'"),
        ('names in another order', DET, classes('b', 'a'), "'b'", TRAIN, 'metainfo'),
        ('no name of the file', DET, classes('x', 'y'), "'x', 'y'", "'a', 'b'"),
        ('names in train only', DET, without_names('val'), 'val_dataloader.dataset', 'metainfo'),
    ],
    'wrong sizes in annotations': [
        ('width and height exchanged', DET, second_image(width=24, height=32), '1.jpg', TRAIN),
    ],
    'unusable dataset': [('half of the annotations', DET, half_of_a_file, f'{TRAIN} is cut off at line 1')],
    'missing files': [
        ('several causes', DET, steps(all_objects(segmentation=[]), files(Path.unlink, 'val/2.jpg')), 'no mask',
         'segmentation', '2.jpg', 'val_dataloader'),
    ],
}
WARNINGS: Table = {
    'wrong sizes in annotations': [
        ('a wrong size where masks do not matter', DET, steps(
            no_mask_head, merge(val_evaluator__metric='bbox'), second_image(height=25)), TRAIN),
    ],
    'boxes and polygons disagree': [
        ('a box that is not that of the polygons', DET, one_object(bbox=[1, 5, 20, 17]), '1 of 2', 'annotation 2'),
        ('boxes by their corners', DET, all_objects(bbox=[4, 5, 14, 11]), 'all 2', '[x1, y1, x2, y2]'),
    ],
    'boxes outside images': [
        ('a box outside among many', DET, steps(change_coco(repeat(3, 10)), one_object(bbox=[4, 5, 40, 6])), '1 of 14',
         'annotation 2'),
    ],
    'more objects than max_per_img': [
        ('more objects than detections', DET, steps(change_coco(repeat(0, 5), 'val'), merge(
            model__test_cfg=dict(rcnn=dict(max_per_img=2)))), 'model.test_cfg.rcnn.max_per_img', 'up to 6', '4 of 9',
         '0.56'),
    ],
    'missing files': [
        ('a missing image of train', DET, files(Path.unlink, 'train/2.jpg'), '1 of 4', '2.jpg', 'unreadable=skip'),
        ('a pipe in the place of an image', DET, files(make_pipe, 'train/2.jpg'), '1 of 4', '2.jpg is not a file'),
    ],
    'train images in another split': [
        ('val is train', DET, train_is_val, 'is too high', 'new_config.py'),
        ('folds', DET, train_in_val, '4 of 4', 'is too high'),
    ],
}
# fmt: on
CASES = make_cases(FAULTS, MORE_FAULTS, WARNINGS)
