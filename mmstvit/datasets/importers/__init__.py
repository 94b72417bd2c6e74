"""Read the annotations of YOLO, Pascal VOC and labelme as COCO content; every number stays as it is in the source.

A reader takes an annotation file and returns the annotations of an image, or None for a file of another kind.
:func:`to_coco` makes the content of a COCO annotation file (instances) of them.
"""

from .coco_table import ImageAnnotations, ImportedObject, bounding_box, to_coco
from .labelme import FLAGS, MASK, read_labelme
from .voc import read_voc
from .yolo import YoloLabels, are_in_pixels, find_shapes, is_label_file, read_yolo, read_yolo_yaml

__all__ = [
    'FLAGS',
    'MASK',
    'ImageAnnotations',
    'ImportedObject',
    'YoloLabels',
    'are_in_pixels',
    'bounding_box',
    'find_shapes',
    'is_label_file',
    'read_labelme',
    'read_voc',
    'read_yolo',
    'read_yolo_yaml',
    'to_coco',
]
