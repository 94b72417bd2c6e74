"""The table of everything that the rules find: what stops a training run, and what is only said.

A fault means that a library crashes, or that labels or metrics are wrong for certain. What is likely but not certain is
a warning. A few findings are less severe where they do not matter; the rule says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from mmstvit.dependencies import tool_command
from mmstvit.errors import UserError, suggest

FAULT = 'fault'
WARNING = 'warning'


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Args:
        severity: ``'fault'``, which training refuses, or ``'warning'``.
        where: ``'config'``, ``'COCO'``, ``'XML'``, ``'label maps'``, ``'class folders'``, ``'lists'`` or ``'files'``.
        meaning: What it means, in a few words.
        remedy: What the user does about it, if that does not depend on the data.
        explains: Kinds of findings that follow from it.
    """

    severity: str
    where: str
    meaning: str
    remedy: str = ''
    explains: tuple[str, ...] = ()


BOXES_ONLY = 'configs/faster_rcnn/faster-rcnn_stvit-nano_fpn_scenes.py'
_OWN_ID = 'Give each entry an id of its own.'
_FIELDS = 'Add the missing fields.'
_BOX = 'Correct the annotation; bbox is [x, y, width, height] in pixels, not [x1, y1, x2, y2] or fractions.'
_MASK = 'Correct the annotation; segmentation is a list of polygons [x1, y1, x2, y2, …] or RLE (size and counts).'
_SKIP = (
    'Repair the file or remove it from the data. To train without such files: --cfg-options data_faults.unreadable=skip'
)
_MAPS = 'Correct the labels in the maps, reduce_zero_label or ignore_index.'
_FOLDERS = 'Make a folder for each class, which may be empty, and set classes to the sorted names of the folders.'
_SPLITS = 'class names of the splits differ'
_OF_NAMES = (_SPLITS, 'class without samples', 'classes and heads disagree', 'label out of range', 'unusable dataset')
_OF_CATEGORIES = (
    *('class without category', 'classes and heads disagree', 'no matching category', 'order of categories'),
    'unused category',
)
_UNUSABLE = ('unusable dataset',)

# fmt: off
# Severity and place -> name of the kind -> meaning, remedy, kinds that follow from it.
_TABLE: dict[tuple[str, str], dict[str, tuple]] = {
    (FAULT, 'config'): {
        'missing data': ('a path in the config does not exist',),
        'unusable dataset': ('the dataset cannot be built, is empty, or has nothing to learn from',
            'Correct the config of the dataset, or its files.'),
        'classes and heads disagree': ('the number of class names and num_classes of the heads differ',),
        'class names are a string': ('each letter would be a class', 'Write a tuple with a comma.', _OF_NAMES),
        _SPLITS: ('the same label means two classes',
            'Give the splits the same names in the same order: metainfo=dict(classes=…), or for class folders the same '
            'folders, which may be empty.'),
        'unknown class': ('the dataset has fixed classes, such as ADE20KDataset, and not this one',
            'For classes of your own use BaseSegDataset.', _OF_NAMES),
        'palette too short': (
            "there are fewer colors than classes, also in the palette of the dataset's class (CocoDataset: 80)", '',
            _UNUSABLE),
        'batch of several sizes': ('images of one batch have several sizes after the pipeline and cannot be stacked',),
        'sliding window': ('test_cfg needs crop_size and stride, and a stride up to the crop',
            "Set model.test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)), or mode='whole'."),
        'BatchNorm of one image': ('a head has BatchNorm after pooling to 1×1, which needs two images per process '
            '(Expected more than 1 value per channel when training)',),
        'evaluator reads other annotations': ('ann_file of evaluator and dataset name files of different content',),
        'nothing to evaluate': ('the test set has no annotations with which the evaluator would compare predictions',),
        'ignore_index differs': ('the evaluator or the auxiliary head ignores another label than decode_head',),
        'top-k above the classes': ('there are fewer classes than k',),
    },
    (WARNING, 'config'): {
        'key without effect': ('MMEngine has no such setting',),
        'schedule and length disagree': (
            'a scheduler ends after or before the run; a fault if it cannot be built',
            'Set begin, end, T_max and milestones for the length of train_cfg, or the length for them.'),
        'train images in another split': ('images are in train, too, or are copies of images there: the metric is too '
            'high',
            'Split the photographs before they are augmented, or let tools/new_config.py split the images of train.'),
    },
    (FAULT, 'COCO'): {
        'invalid annotation file': ('the file is not in the COCO format for object detection',
            'Export the annotations in the COCO format for object detection (instances).'),
        'no list of categories': ('the file has no list categories: its classes are unknown',
            'Copy categories from the training file.', _OF_CATEGORIES),
        'invalid category': ('a category has no id or name', _FIELDS, _OF_CATEGORIES),
        'category name is a number': ('a name has to be a string', '', _OF_CATEGORIES),
        'one category id twice': ('two categories have one id', _OWN_ID, _OF_CATEGORIES),
        'two categories of one name': ('two categories have one name',
            'Give the annotations of both one category_id and remove the other category, or rename one.',
            _OF_CATEGORIES),
        'invalid image entry': ('an image has no id or file_name', _FIELDS),
        'wrong path in file_name': ('file_name is a path of another computer, of Windows, or of another folder',
            'Correct file_name to the path below the folder of the images.', ('missing files',)),
        'duplicate image id': ('two images have one id, and MMDetection keeps one of them', _OWN_ID),
        'duplicate file': ('an image is listed twice; a warning in other lists than those of COCO',
            'List each file once, with all its annotations.'),
        'invalid image size': ('width and height are not whole numbers above 0',
            'Add width and height in pixels; with the image files at hand --fix reads them from there.'),
        'wrong sizes in annotations': ('width and height are not those of the file; a warning without masks',
            'Annotate the image files that are used for training, or turn or resize them to the annotated size.'),
        'invalid annotation': ('an annotation has no image_id or category_id', _FIELDS),
        'id of another type': ('a number and a string are not equal', '', ('unknown image id', 'unknown category')),
        'unknown image id': ('image_id is not in images', 'Add the images to images, or remove the annotations.'),
        'unknown category': ('category_id is not in categories', 'Add the categories, or correct category_id.'),
        'invalid annotation id': ('an id is not a number; a warning in training',),
        'duplicate annotation id': ('two annotations have one id, and evaluation counts one of them',),
        'annotation listed twice': ('the same annotation is there twice', '', ('duplicate annotation id',)),
        'number is a string': ('a number is written as a string',),
        'polygons in another form': ('segmentation has to be a list of polygons [[x1, y1, x2, y2, …], …]',),
        'polygon below 3 points': ('a polygon needs three points, 6 numbers', _MASK),
        'invalid mask': ('a mask is neither polygons (pairs of finite numbers) nor RLE (runs of its size)', _MASK),
        'invalid box': ('bbox is not four finite numbers, or less than 1 pixel', _BOX),
        'no area': ('area is not a number',),
        'invalid iscrowd': ('iscrowd is not 0 or 1; a warning in training if it is missing',),
        'RLE of another size': ('an RLE mask has not the size [height, width] of its image',
            'Encode the masks at the size of their images, or correct width and height of the images.'),
        'no mask': ('the config wants masks, but segmentation is empty, or no masks are loaded or predicted',
            f'Add the masks and set with_mask=True of LoadAnnotations, or train a detector of boxes alone, such as '
            f"{BOXES_ONLY}, with the metric 'bbox'."),
        'no matching category': ('no category is in metainfo.classes', '',
            ('unusable dataset', 'dropped annotations', 'classes and heads disagree', _SPLITS)),
        'class without category': (
            'the file lacks a class: labels shift, or evaluation fails; a warning if it is the last, in training',),
        'order of categories': ('labels follow the order of the file, but names that of metainfo.classes', '',
            (_SPLITS,)),
    },
    (WARNING, 'COCO'): {
        'no list of annotations': ('the file has no list annotations, like that of a test set',),
        'annotation id 0': ('pycocotools counts the id 0 as not found: AP is too low',),
        'area 0': ('area is 0, for which MMDetection drops the object; its mask or box is larger',),
        'evaluated but never learned': ('evaluation counts objects that training drops: no model can reach AP 1',
            f'Remove them: {tool_command("new_config.py")} DATA --fix writes a repaired copy.',
            ('dropped annotations',)),
        'more objects than max_per_img': ('an image has more objects than the detector returns: recall is lost',),
        'boxes outside images': (
            'a box extends beyond its image by more than 2 pixels; a fault if many extend far: another format', _BOX),
        'boxes and polygons disagree': ('a box differs from the extent of its own polygons',
            'Make the boxes again from the polygons: [x, y, width, height] in pixels.'),
        'masks outside images': ('a mask extends beyond its image by more than 2 pixels', _MASK),
        'empty mask': ('a mask has no area', _MASK),
        'dropped annotations': ('MMDetection drops objects of area 0, with a box below 1 pixel or outside the image',
            'Correct them if there are many.'),
        'no annotation': ('an image has no annotation',
            'Annotate the objects, if any; filter_cfg=dict(filter_empty_gt=True) drops such images.'),
        'unused category': ('annotations are dropped: their category is not in metainfo.classes',
            'If the model should learn it, add it to metainfo.classes and set num_classes.'),
    },
    (WARNING, 'XML'): {
        'unknown name in XML files': (
            'objects are dropped: metainfo.classes lacks their name, or has it in another case',
            'Make metainfo.classes and the names in the files equal, also in upper and lower case.'),
    },
    (FAULT, 'lists'): {
        'invalid list of files': ('a line of ann_file is not a path, a blank and a label (MMPreTrain)',
            'Write one image per line: its path, one blank, and the number of its class from 0.',
            (*_UNUSABLE, 'missing files', 'class without samples')),
    },
    (FAULT, 'label maps'): {
        'picture of labels': ('a map has more than 1 channel: a picture of the labels?',
            'Replace each color by the number of its class, and save one channel; a palette is allowed.', _UNUSABLE),
        'only one class in the maps': ('every model reaches a perfect score; a warning if it is a part of the data',
            _MAPS),
        'label out of range': ('a label is neither a class nor ignored; labels begin at 0',
            'Make the maps, metainfo.classes and num_classes agree; see also reduce_zero_label and ignore_index.',
            _UNUSABLE),
        'wrong segmentation map size': ('a map has not the size of its image',
            'Make the map again for its image; tools/misc/verify_dataset.py CONFIG names all such maps.'),
        'unreadable segmentation map': ('a map cannot be read: empty, truncated or damaged', _SKIP),
    },
    (WARNING, 'label maps'): {
        'nothing labeled': ('every pixel of a map is ignored', _MAPS),
        'most pixels are ignored': ('more than half of the pixels of the maps are ignored', _MAPS),
        'reduce_zero_label': ('label 0 is ignored and the last class does not occur',
            'If label 0 is the first class, set reduce_zero_label=False.'),
    },
    (FAULT, 'class folders'): {
        'class folders and classes differ': ('the sorted folders give the labels, but classes has other names',
            _FOLDERS, _OF_NAMES),
        'order of classes': ('the sorted folders give the labels, but classes is in another order',
            _FOLDERS, _OF_NAMES),
        'system folder as a class': ('a folder that a system made counts as a class and shifts the labels',
            'Delete the folder.', _OF_NAMES),
        'splits as classes': ('the folders are splits, not classes', 'Set data_prefix to one of them.', _OF_NAMES),
    },
    (WARNING, 'class folders'): {
        'misspelt class name': ('some names in classes are not those of the folders', _FOLDERS, _OF_NAMES),
        'class without samples': ('a class has no sample', 'Add samples of the class, or remove it.'),
    },
    (FAULT, 'files'): {
        'missing files': ('images or maps do not exist; a warning for some of those for training',
            'Put the files there, or set data_root and data_prefix of the dataset to their folder. To train without '
            'some of them: --cfg-options data_faults.unreadable=skip'),
        'unreadable image': (
            'an image cannot be read: empty, truncated, damaged, too large, a web page or a pointer of Git LFS', _SKIP),
        'image that the pipeline refuses': (
            'the pipeline fails with an image, such as one that Resize would shrink to 0 pixels',
            "Remove, crop or convert the image, or change the pipeline (color_type='color' loads 3 channels)."),
        'channels of images': ('images differ in their channels, or from mean and in_channels',
            "Convert the files, load all alike (color_type='color': 3 channels), or set mean, std and in_channels."),
    },
    (WARNING, 'files'): {
        'file with another suffix': ('the dataset does not read images because of their suffix',
            'Convert them, or set extensions or img_suffix of the dataset if the format is read (not .jxl).'),
        'same content': ('two files of a split have the same content', 'Remove one of the files.'),
        'unused file': ('no split uses an image beside those of the data',
            'To use the file, add it to the annotations, or save it in a format that the dataset reads.'),
        'not verified': ('samples have no files, or the dataset is not a subclass of mmengine.dataset.BaseDataset',
            'Check these samples by other means.'),
        'black 16-bit image': ('12 bits of 16 or fewer are used: nearly black after decoding to 8 bits',
            'Scale the files to the whole range of 16 bits, or save them with 8 bits.'),
    },
}
# fmt: on
KINDS = {name: Kind(*place, *row) for place, rows in _TABLE.items() for name, row in rows.items()}


def check_kinds(names: Iterable[str]) -> None:
    """Refuse names that are not in the table; raises UserError with the nearest one."""
    for name in names:
        if name not in KINDS:
            raise UserError(
                f'{name!r} is not a kind of finding.{suggest(name, [*KINDS])}', 'docs/data.md lists all kinds.'
            )
