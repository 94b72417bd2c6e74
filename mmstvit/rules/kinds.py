"""The table of everything that the rules find: what stops a training run, and what is only said.

A fault means that a library crashes, or that labels or metrics are wrong for certain. What is likely but not certain is
a warning. A few findings are less severe where they do not matter; the rule says so.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from mmstvit.errors import UserError

FAULT = 'fault'
WARNING = 'warning'


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Args:
        severity: ``'fault'``, which training refuses, or ``'warning'``.
        place: Where it is: ``'config'``, ``'COCO'``, ``'label maps'``, ``'class folders'``, ``'lists'`` or ``'files'``.
        meaning: What it means, in a few words.
    """

    severity: str
    place: str
    meaning: str


def _kinds(severity: str, place: str, **meanings: str) -> dict[str, Kind]:
    return {name.replace('_', ' '): Kind(severity, place, meaning) for name, meaning in meanings.items()}


# Name of the kind -> kind. A name with other characters than letters is written as it is.
KINDS: dict[str, Kind] = {
    **_kinds(
        FAULT,
        'config',
        missing_data='a path in the config does not exist',
        unusable_dataset='the dataset cannot be built, is empty, or has nothing to learn from',
        classes_and_heads_disagree='the number of class names and num_classes of a head differ',
        class_names_are_a_string="classes=('balloon') in place of ('balloon',)",
        class_names_of_the_splits_differ='the same label would mean two classes',
        unknown_class='a name that a dataset with fixed classes, such as ADE20KDataset, does not have',
        palette_too_short="fewer colors than classes, also those of the dataset's class, such as 80 of CocoDataset",
        batch_of_several_sizes='images of an evaluation batch (MMSegmentation, MMPreTrain) cannot be stacked',
        sliding_window='test_cfg has no crop_size or stride, or a stride above the crop',
        BatchNorm_of_one_image='a segmentation head normalizes features of 1×1 over a batch of one image',
        evaluator_reads_other_annotations='ann_file of evaluator and dataset name files of different content',
        nothing_to_evaluate='a test set without annotations and an evaluator without format_only=True',
    ),
    'ignore_index differs': Kind(FAULT, 'config', 'decode_head, auxiliary_head and IoUMetric ignore different labels'),
    'top-k above the classes': Kind(FAULT, 'config', 'such as top-5 accuracy of two classes'),
    **_kinds(
        WARNING,
        'config',
        key_without_effect='a top-level key of MMDetection 2.x, or a misspelt one',
        schedule_and_length_disagree='a scheduler ends after or before the run; a fault if it cannot be built',
        train_images_in_another_split='the metric is too high',
    ),
    **_kinds(
        FAULT,
        'COCO',
        invalid_annotation_file='the file is not in the COCO format for object detection',
        no_list_of_categories='the classes are unknown',
        invalid_category='a category has no id or name',
        category_name_is_a_number='a name has to be a string',
        one_category_id_twice='two categories have one id',
        two_categories_of_one_name='two categories have one name',
        invalid_image_entry='an image has no id or file_name',
        duplicate_image_id='MMDetection keeps one of the images',
        duplicate_file='an image is listed twice; a warning in other lists than those of COCO',
        invalid_image_size='width and height are not whole numbers above 0',
        wrong_sizes_in_annotations='width and height are not those of the file; a warning without masks',
        invalid_annotation='an annotation has no image_id or category_id',
        id_of_another_type='1 and "1" are not equal',
        unknown_image_id='image_id is not in images',
        unknown_category='category_id is not in categories',
        invalid_annotation_id='an id is not a number; a warning in training',
        duplicate_annotation_id='evaluation counts one of them',
        annotation_listed_twice='the same annotation twice',
        number_is_a_string='a number has to be a number',
        flat_polygon='a polygon that is not in a list of polygons',
        nested_polygon='too many lists around a polygon',
        polygon_of_points='points are lists of their own',
        empty_polygon='a polygon without numbers',
        polygon_below_3_points='a point or a line',
        odd_polygon='an odd count of numbers',
        invalid_mask='neither polygons nor RLE; run lengths that do not add up',
        invalid_box='not four finite numbers, or less than 1 pixel',
        no_area='area is missing',
        invalid_iscrowd='iscrowd is not 0 or 1; a warning in training if it is missing',
        RLE_of_another_size='the size of the mask is not that of its image',
        no_mask='masks are wanted, but objects have none; or a mask head gets none',
        no_matching_category='no name in categories is in metainfo.classes',
        class_without_category='labels shift, or evaluation fails; a warning if it is the last, in training',
        order_of_categories='labels follow the order of the file, names that of metainfo.classes',
    ),
    'absolute path in file_name': Kind(FAULT, 'COCO', 'a path of another computer'),
    'Windows path in file_name': Kind(FAULT, 'COCO', 'a path with \\'),
    'another folder in file_name': Kind(FAULT, 'COCO', 'the file is in another folder'),
    'more objects than max_per_img': Kind(WARNING, 'COCO', 'in a validation image; recall is lost'),
    'annotation id 0': Kind(WARNING, 'COCO', 'pycocotools counts it as not found: AP is too low'),
    'area 0': Kind(WARNING, 'COCO', 'MMDetection drops the object; its mask or box is larger'),
    **_kinds(
        WARNING,
        'COCO',
        no_list_of_annotations='like a test set',
        boxes_outside_images='by more than 2 pixels; a fault if many extend far: another format',
        boxes_and_polygons_disagree='a box differs from the extent of its own polygons',
        box_outside_image='by more than 2 pixels',
        box_slightly_outside_image='by up to 2 pixels: rounding',
        mask_outside_image='by more than 2 pixels',
        mask_slightly_outside_image='by up to 2 pixels: rounding',
        empty_mask='covers no pixel',
        dropped_annotations='MMDetection drops the object: area 0, a box below 1 pixel or outside the image',
        evaluated_but_never_learned='evaluation counts objects that training drops: no model can reach AP 1',
        no_annotation='an image without annotations',
        unused_category='not in metainfo.classes: its annotations are dropped',
    ),
    **_kinds(
        FAULT,
        'label maps',
        picture_of_labels='more than one channel: colors in place of labels',
        only_one_class_in_the_maps='every model reaches a perfect score; a warning for validation',
        label_out_of_range='a label that is neither a class nor ignored; also 16-bit labels',
        wrong_segmentation_map_size='the size differs from that of the image',
        unreadable_segmentation_map='empty, truncated or damaged',
    ),
    **_kinds(
        WARNING,
        'label maps',
        nothing_labeled='every pixel of a map is ignored',
        most_pixels_are_ignored='more than half of the pixels of the maps',
    ),
    'reduce_zero_label': Kind(WARNING, 'label maps', 'label 0 is ignored and the last class does not occur'),
    **_kinds(
        FAULT,
        'class folders',
        class_folders_and_classes_differ='the sorted folders give the labels, classes only their names',
        order_of_classes='classes is not in the order of the sorted folders',
        system_folder_as_a_class='__MACOSX, hidden folders',
        splits_as_classes='data_prefix names the folder above the splits',
    ),
    **_kinds(
        WARNING,
        'class folders',
        misspelt_class_name='some names in classes are not those of the folders',
        class_without_samples='a class that no sample has',
    ),
    **_kinds(
        FAULT,
        'files',
        missing_files='images or maps do not exist; a warning for some of those for training',
        missing_file='an image or map does not exist',
        unreadable_image='empty, truncated, damaged, a web page or a pointer of Git LFS',
        wrong_image_size='the size differs from the annotations; a warning without masks',
        channels_of_images='images differ in their channels, or from mean and in_channels',
    ),
    **_kinds(
        WARNING,
        'files',
        file_with_another_suffix='MMPreTrain or MMSegmentation does not read it',
        same_content='two files of a split have the same content',
        same_content_in_two_splits='validation on a training image',
        copies_in_two_splits='validation on an augmented copy of a training image',
        unused_file='no split uses the file',
        not_verified='samples without files, or a dataset that is not of MMEngine',
    ),
    'black 16-bit image': Kind(WARNING, 'files', '12 of 16 bits are used: nearly black after decoding to 8 bits'),
}


def check_kinds(names: Iterable[str]) -> None:
    """Refuse names that are not in the table; raises UserError with the nearest one."""
    for name in names:
        if name not in KINDS:
            near = difflib.get_close_matches(str(name), KINDS, n=1)
            raise UserError(
                f'{name!r} is not a kind of finding.',
                f'Did you mean {near[0]!r}?' if near else 'docs/data.md lists all kinds.',
            )
