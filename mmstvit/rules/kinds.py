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
_BOX = (
    'Correct the annotation; bbox is [x, y, width, height] in pixels, not [x1, y1, x2, y2] or fractions. Of a rotated '
    'box, with an angle, write the upright one around it.'
)
_MASK = 'Correct the annotation; segmentation is a list of polygons [x1, y1, x2, y2, …] or RLE (size and counts).'
_MAPS = 'Correct the labels in the maps, reduce_zero_label or ignore_index.'
_SPLITS = 'class names of the splits differ'
_OF_NAMES = (_SPLITS, 'class without samples', 'classes and heads disagree', 'label out of range', 'unusable dataset')
_UNUSABLE = ('unusable dataset',)

# fmt: off
# Severity and place -> name of the kind -> meaning, remedy, kinds that follow from it.
_TABLE: dict[tuple[str, str], dict[str, tuple]] = {
    (FAULT, 'config'): {
        'unusable dataset': ('the dataset cannot be built, is empty, or has nothing to learn from',
            'Correct the config of the dataset, or its files.'),
        'classes and heads disagree': ('the number of class names and num_classes of the heads differ',),
        'class names are a string': ('each letter would be a class', 'Write a tuple with a comma.', _OF_NAMES),
        _SPLITS: ('the same label means two classes',
            'Give the splits the same names in the same order: metainfo=dict(classes=…), or for class folders the same '
            'folders, which may be empty.'),
        'batch of several sizes': ('images of one batch have several sizes after the pipeline and cannot be stacked',),
        'sliding window': ('test_cfg needs crop_size and stride, and a stride up to the crop',
            "Set model.test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)), or mode='whole'."),
        'evaluator reads other annotations': ('ann_file of evaluator and dataset name files of different content',),
        'nothing to evaluate': ('the test set has no annotations with which the evaluator would compare predictions',),
        'ignore_index differs': ('the evaluator or the auxiliary head ignores another label than decode_head',),
        'top-k above the classes': ('there are fewer classes than k',),
    },
    (WARNING, 'config'): {
        'key without effect': ('MMEngine has no such setting',),
        'schedule and length disagree': ('a scheduler ends after or before the run',
            'Set begin, end, T_max and milestones for the length of train_cfg, or the length for them.'),
        'train images in another split': ('images are in train, too, or are copies of images there: the metric is too '
            'high',
            'Split the photographs before they are augmented, or let tools/new_config.py split the images of train.'),
    },
    (FAULT, 'COCO'): {
        'invalid annotation file': ('the file is not in the COCO format for object detection',
            'Export the annotations in the COCO format for object detection (instances).'),
        'missing field': ('an image, category or annotation has no id, file_name, name, image_id or category_id',
            'Add the missing fields.'),
        'value of another type': ('a number is written as a string, a name as a number, or an id not as in its list',),
        'duplicate category': ('two categories have one id or one name',
            'Give each category an id and a name of its own; of one name twice, give the annotations of both one '
            'category_id and remove the other category.'),
        'wrong path in file_name': ('file_name is a path of another computer, of Windows, or of another folder',
            'Correct file_name to the path below the folder of the images.', ('missing files',)),
        'duplicate image': ('two images have one id, or one file; a warning in other lists than those of COCO',
            'Give each image an id of its own, and list each file once, with all its annotations.'),
        'invalid image size': ('width and height are not whole numbers above 0',
            'Add width and height in pixels; with the image files at hand --fix reads them from there.'),
        'wrong sizes in annotations': ('width and height are not those of the file; a warning without masks',
            'Annotate the image files that are used for training, or turn or resize them to the annotated size.'),
        'unknown id': ('image_id is not in images, or category_id not in categories',
            'Add the images or categories, correct the ids, or remove the annotations.'),
        'invalid annotation id': ('an id is not a number; a warning in training',),
        'duplicate annotation id': ('two annotations have one id: evaluation counts one; or one is there twice',),
        'invalid mask': ('a mask is neither polygons [[x1, y1, x2, y2, x3, y3, …], …] of 3 or more points nor RLE '
            '(runs that fill its size)', _MASK),
        'invalid box': ('bbox is not four finite numbers, or less than 1 pixel', _BOX),
        'invalid area': ('area is not a number; or it is 0 where mask or box are larger, and MMDetection drops the '
            'object: a warning',),
        'invalid iscrowd': ('iscrowd is not 0 or 1; a warning in training if it is missing',),
        'RLE of another size': ('an RLE mask has not the size [height, width] of its image',
            'Encode the masks at the size of their images, or correct width and height of the images.'),
        'no mask': ('the config wants masks, but segmentation is empty, or no masks are loaded or predicted',
            f'Add the masks and set with_mask=True of LoadAnnotations, or train a detector of boxes alone, such as '
            f"{BOXES_ONLY}, with the metric 'bbox'."),
        'categories and classes differ': ('labels follow the order of the categories in the file, names that of '
            'metainfo.classes; a warning if only the last class has no category, in training', '',
            (_SPLITS,)),
    },
    (WARNING, 'COCO'): {
        'no list of annotations': ('the file has no list annotations, like that of a test set',),
        'annotation id 0': ('pycocotools counts the id 0 as not found: AP is too low',),
        'more objects than max_per_img': ('an image has more objects than the detector returns: recall is lost',),
        'boxes outside images': (
            'a box extends beyond its image by more than 2 pixels; a fault if many extend far: another format', _BOX),
        'boxes and polygons disagree': ('a box differs from the extent of its own polygons',
            'Make the boxes again from the polygons: [x, y, width, height] in pixels.'),
        'empty mask or outside image': ('a mask has no area, or extends beyond its image by more than 2 pixels', _MASK),
        'dropped annotations': ('MMDetection drops objects of area 0, with a box below 1 pixel or outside the image; '
            'evaluation counts them: no model can reach AP 1',
            f'Remove them: {tool_command("new_config.py")} DATA --fix writes a repaired copy.'),
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
    },
    (WARNING, 'label maps'): {
        'most pixels are ignored': ('all pixels of a map are ignored, or more than half of all pixels', _MAPS),
        'reduce_zero_label': ('label 0 is ignored and the last class does not occur',
            'If label 0 is the first class, set reduce_zero_label=False.'),
    },
    (FAULT, 'class folders'): {
        'class folders and classes differ': ('the sorted folders give the labels, but classes has other names, or '
            'another order; a warning if a name is misspelt',
            'Make a folder for each class, which may be empty, and set classes to the sorted names of the folders.',
            _OF_NAMES),
        'folder that is no class': ('the folder was made by a system and shifts the labels, or it is a split',
            'Delete folders of systems; set data_prefix to the folder of the split.', _OF_NAMES),
    },
    (WARNING, 'class folders'): {
        'class without samples': ('a class has no sample', 'Add samples of the class, or remove it.'),
    },
    (FAULT, 'files'): {
        'missing files': ('files or folders do not exist; a warning for some of the images for training',
            'Put the files there, or set data_root and data_prefix of the dataset to their folder. To train without '
            'some of them: --cfg-options data_faults.unreadable=skip'),
        'unreadable file': ('an image or map cannot be read: empty, truncated, damaged, too large, a web page or a '
            'pointer of Git LFS',
            'Repair the file or remove it from the data. To train without such files: --cfg-options '
            'data_faults.unreadable=skip'),
        'image that the pipeline refuses': (
            'the pipeline fails with an image, such as one that Resize would shrink to 0 pixels',
            "Remove, crop or convert the image, or change the pipeline (color_type='color' loads 3 channels)."),
        'channels of images': ('images differ in their channels',
            "Convert the files, or load all alike (color_type='color': 3 channels)."),
    },
    (WARNING, 'files'): {
        'same content': ('two files of a split have the same content', 'Remove one of the files.'),
        'unused file': ('no split uses an image beside those of the data, perhaps because of its suffix',
            'Add the file to the annotations, convert it, or set extensions or img_suffix of the dataset if the format '
            'is read (not .jxl).'),
        'not verified': ('samples have no files, or the dataset is not a subclass of mmengine.dataset.BaseDataset',
            'Check these samples by other means.'),
        'pages that are not read': ('an image file has several pages, of which the first is read',
            'Save each page as a file.'),
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
