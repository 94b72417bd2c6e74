"""Read the annotations of YOLO, Pascal VOC and labelme as COCO content; every number stays as it is in the source.

A reader takes the root of a data set and paths relative to it. The result is the content of a COCO annotation file
(instances) whose ``file_name`` is relative to the root, and a count of what was not used.
"""

from .coco_table import CocoTable
from .labelme import read_labelme
from .voc import read_voc
from .yolo import YoloLabels, read_yolo, read_yolo_yaml

__all__ = ['CocoTable', 'YoloLabels', 'read_labelme', 'read_voc', 'read_yolo', 'read_yolo_yaml']
