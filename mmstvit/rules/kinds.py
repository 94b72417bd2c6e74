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
_FIELDS = 'Add the missing fields.'
_OWN_ID = 'Give each entry an id of its own.'
_POLYGON = 'Correct the polygon, [x1, y1, x2, y2, …] with three points or more, or remove the annotation.'
_BOX = 'Correct the annotation; bbox is [x, y, width, height] in pixels.'
_MASK = 'Correct the annotation; segmentation is a list of polygons [x1, y1, x2, y2, …] or RLE (size and counts).'
_SKIP = (
    'Repair the file or remove it from the data. To train without such files: --cfg-options data_faults.unreadable=skip'
)
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
        'classes and heads disagree': ('the number of class names and num_classes of a head differ',),
        'class names are a string': ("classes=('balloon') in place of ('balloon',)", '', _OF_NAMES),
        _SPLITS: ('the same label would mean two classes',),
        'unknown class': ('a name that a dataset with fixed classes, such as ADE20KDataset, does not have',
            'For classes of your own use BaseSegDataset.', _OF_NAMES),
        'palette too short': ("fewer colors than classes, also those of the dataset's class, such as 80 of CocoDataset",
            '', _UNUSABLE),
        'batch of several sizes': ('images of an evaluation batch (MMSegmentation, MMPreTrain) cannot be stacked',),
        'sliding window': ('test_cfg has no crop_size or stride, or a stride above the crop',
            "Set model.test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)), or mode='whole'."),
        'BatchNorm of one image': ('a segmentation head normalizes features of 1×1 over a batch of one image',),
        'evaluator reads other annotations': ('ann_file of evaluator and dataset name files of different content',),
        'nothing to evaluate': ('a test set without annotations and an evaluator without format_only=True',),
        'ignore_index differs': ('decode_head, auxiliary_head and IoUMetric ignore different labels',),
        'top-k above the classes': ('such as top-5 accuracy of two classes',),
    },
    (WARNING, 'config'): {
        'key without effect': ('a top-level key of MMDetection 2.x, or a misspelt one',),
        'schedule and length disagree': (
            'a scheduler ends after or before the run; a fault if it cannot be built',),
        'train images in another split': ('also augmented or similar copies of them: the metric is too high',
            'Split the photographs before they are augmented, or let tools/new_config.py split the images of train.'),
    },
    (FAULT, 'COCO'): {
        'invalid annotation file': ('the file is not in the COCO format for object detection',
            'Export the annotations in the COCO format for object detection (instances).'),
        'no list of categories': ('the file has no list categories: its classes are unknown',
            'Copy categories from the training file.', _OF_CATEGORIES),
        'RLE of another size': ('the size of the mask is not that of its image',
            'Encode the masks at the size of their images, or correct width and height of the images.',
            ('invalid mask',)),
        'no mask': ('masks are wanted, but objects have none; or a mask head gets none',),
        'no matching category': ('no name in categories is in metainfo.classes', '',
            ('unusable dataset', 'dropped annotations', 'classes and heads disagree', _SPLITS)),
        'class without category': (
            'labels shift, or evaluation fails; a warning if it is the last, in training',),
        'order of categories': ('labels follow the order of the file, names that of metainfo.classes', '', (_SPLITS,)),
    },
    (FAULT, 'COCO categories'): {
        'invalid category': ('a category has no id or name', _FIELDS, _OF_CATEGORIES),
        'category name is a number': ('a name has to be a string', '', _OF_CATEGORIES),
        'one category id twice': ('two categories have one id', _OWN_ID, _OF_CATEGORIES),
        'two categories of one name': ('two categories have one name',
            'Give the annotations of both one category_id and remove the other category, or rename one.',
            _OF_CATEGORIES),
    },
    (FAULT, 'COCO images'): {
        'invalid image entry': ('an image has no id or file_name', _FIELDS),
        'wrong path in file_name': ('the path is of another computer, of Windows, or of another folder',
            'Correct file_name to the path below the folder of the images.', ('missing files',)),
        'duplicate image id': ('MMDetection keeps one of the images', _OWN_ID),
        'duplicate file': ('an image is listed twice; a warning in other lists than those of COCO',
            'List each file once, with all its annotations.'),
        'invalid image size': ('width and height are not whole numbers above 0',
            'Add width and height in pixels; with the image files at hand --fix reads them from there.'),
        'wrong sizes in annotations': ('width and height are not those of the file; a warning without masks',
            'Annotate the image files that are used for training, or turn or resize them to the annotated size.'),
    },
    (FAULT, 'COCO annotations'): {
        'invalid annotation': ('an annotation has no image_id or category_id', _FIELDS),
        'id of another type': ('1 and "1" are not equal', '', ('unknown image id', 'unknown category')),
        'unknown image id': ('image_id is not in images', 'Add the images to images, or remove the annotations.'),
        'unknown category': ('category_id is not in categories', 'Add the categories, or correct category_id.'),
        'invalid annotation id': ('an id is not a number; a warning in training',),
        'duplicate annotation id': ('evaluation counts one of the annotations of an id',),
        'annotation listed twice': ('the same annotation is there more than once', '', ('duplicate annotation id',)),
        'number is a string': ('a number has to be a number',),
        'polygons in another form': ('segmentation has to be a list of polygons [[x1, y1, x2, y2, …], …]',),
        'polygon below 3 points': ('a polygon needs three points, 6 numbers', _POLYGON),
        'invalid mask': ('neither polygons, lists of pairs of finite numbers, nor RLE', _MASK),
        'invalid box': ('not four finite numbers, or less than 1 pixel', _BOX),
        'no area': ('area is not a number',),
        'invalid iscrowd': ('iscrowd is not 0 or 1; a warning in training if it is missing',),
    },
    (WARNING, 'COCO'): {
        'no list of annotations': ('the file has no list annotations, like that of a test set',),
        'more objects than max_per_img': ('in a validation image; recall is lost',),
        'boxes outside images': ('by more than 2 pixels; a fault if many extend far: another format',
            'Correct the boxes; bbox is [x, y, width, height] in pixels, not [x1, y1, x2, y2] or fractions.'),
        'boxes and polygons disagree': ('a box differs from the extent of its own polygons',
            'Make the boxes again from the polygons: [x, y, width, height] in pixels.'),
        'masks outside images': ('by more than 2 pixels', _MASK),
        'empty mask': ('the mask has no area', _MASK),
        'dropped annotations': ('MMDetection drops the object: area 0, a box below 1 pixel or outside the image',
            'Correct them if there are many.'),
        'no annotation': ('an image without annotations',
            'Annotate the objects, if any; filter_cfg=dict(filter_empty_gt=True) drops such images.'),
        'unused category': ('not in metainfo.classes: its annotations are dropped',
            'If the model should learn it, add it to metainfo.classes and set num_classes.'),
    },
    (WARNING, 'COCO annotations'): {
        'annotation id 0': ('pycocotools counts the id 0 as not found: AP is too low',),
        'area 0': ('MMDetection drops the object; its mask or box is larger',),
        'evaluated but never learned': (
            'evaluation counts objects that training drops: no model can reach AP 1',
            f'Remove them: {tool_command("new_config.py")} DATA --fix writes a repaired copy.'),
    },
    (WARNING, 'XML'): {
        'unknown name in XML files': ('a class of the files that metainfo.classes lacks, or writes in another case',
            'Make metainfo.classes and the names in the files equal, also in upper and lower case.'),
    },
    (FAULT, 'lists'): {
        'invalid list of files': ('a line of ann_file is not a path, a blank and a label (MMPreTrain)',
            'Write one image per line: its path, one blank, and the number of its class from 0.',
            (*_UNUSABLE, 'missing files', 'class without samples')),
    },
    (FAULT, 'label maps'): {
        'picture of labels': ('more than one channel: colors in place of labels',
            'Replace each color by the number of its class, and save one channel; a palette is allowed.', _UNUSABLE),
        'only one class in the maps': ('in the data of all splits; a warning for some of them',),
        'label out of range': ('a label that is neither a class nor ignored; also 16-bit labels',
            'Make the labels and metainfo.classes agree; labels begin at 0.', _UNUSABLE),
        'wrong segmentation map size': ('the size differs from that of the image',
            'Make the map again for its image; tools/misc/verify_dataset.py CONFIG names all such maps.'),
        'unreadable segmentation map': ('empty, truncated or damaged', _SKIP),
    },
    (WARNING, 'label maps'): {
        'nothing labeled': ('every pixel of a map is ignored',
            'If the image has labels, correct the map or reduce_zero_label.'),
        'most pixels are ignored': ('more than half of the pixels of the maps',
            'If they have labels, correct the maps, reduce_zero_label or ignore_index.'),
        'reduce_zero_label': ('label 0 is ignored and the last class does not occur',),
    },
    (FAULT, 'class folders'): {
        'class folders and classes differ': (
            'the sorted folders give the labels, classes only their names', '', _OF_NAMES),
        'order of classes': ('classes is not in the order of the sorted folders', '', _OF_NAMES),
        'system folder as a class': ('__MACOSX, hidden folders', '', _OF_NAMES),
        'splits as classes': ('data_prefix names the folder above the splits', '', _OF_NAMES),
    },
    (WARNING, 'class folders'): {
        'misspelt class name': ('some names in classes are not those of the folders', '', _OF_NAMES),
        'class without samples': ('a class that no sample has', 'Add samples of the class, or remove it.'),
    },
    (FAULT, 'files'): {
        'missing files': ('images or maps do not exist; a warning for some of those for training',
            'Put the files there, or set data_root and data_prefix of the dataset to their folder.'),
        'unreadable image': ('empty, truncated, damaged, a web page or a pointer of Git LFS', _SKIP),
        'image that the pipeline refuses': ('such as one that Resize would shrink to 0 pixels, or of too many bands',
            'Remove the image, crop it to a usual shape, convert it, or change the pipeline.'),
        'channels of images': ('images differ in their channels, or from mean and in_channels',),
    },
    (WARNING, 'files'): {
        'file with another suffix': ('MMPreTrain or MMSegmentation does not read it',),
        'same content': ('two files of a split have the same content', 'Remove one of the files.'),
        'unused file': ('an image beside the images of the data that no split uses',
            'To use the file, add it to the annotations, or save it in a format that the dataset reads.'),
        'not verified': ('samples without files, or a dataset that is not of MMEngine',
            'Check these samples by other means.'),
        'black 16-bit image': ('12 of 16 bits are used: nearly black after decoding to 8 bits',
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
