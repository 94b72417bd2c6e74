"""XML files of Pascal VOC: a file per image, with the boxes of its objects."""

import itertools
import math
import re
from collections import Counter
from pathlib import Path

from defusedxml.ElementTree import fromstring

from mmstvit.errors import DataError
from mmstvit.fileio import read_file

from .coco_table import ImageAnnotations, ImportedObject, parsing

_ANGLE = re.compile('angle|rotat|theta', re.I)
# Elements of an object in VOC's own files; those of other files, such as <action>, may have its class.
_KNOWN = ('name', 'pose', 'truncated', 'occluded', 'difficult', 'bndbox', 'part')


def read_voc(path: Path) -> ImageAnnotations | None:
    """Read the boxes of a file; None if it is XML of another kind.

    A box is [xmin, ymin, xmax − xmin, ymax − ymin] with the numbers of the file. VOC's own files count pixels from 1,
    most tools from 0; MMDetection's VOCDataset (tried: 3.5.1) subtracts 1 from all four numbers, of any file. Objects
    that are ``difficult`` count neither in training nor in evaluation.

    Raises:
        DataError: The file is not XML, or an object has no class or box.
    """
    with parsing(path, 'XML file'):
        root = fromstring(read_file(path))
    if root.tag != 'annotation':
        return None
    objects, unused = [], Counter()
    for number, node in enumerate(root.findall('object'), 1):
        name, boxes = (node.findtext('name') or '').strip(), node.findall('bndbox')
        if not boxes and node.find('robndbox') is not None:
            raise DataError(
                f'{path.parent} has oriented boxes (robndbox), which are not read.',
                'If other files have the upright boxes, move this folder away.',
            )
        if not boxes and node.find('polygon') is not None:
            raise DataError(
                f'{path.parent} has XML files with polygons, of LabelMe (MIT) or of CVAT in its format "LabelMe 3.0".',
                'Export the objects in COCO format with their polygons; a table would keep their boxes alone.',
            )
        for leaf in node.iter():
            if _ANGLE.search(leaf.tag) and (leaf.text or '').strip(' 0.'):
                raise DataError(
                    f'{path}: object {number} has the angle {leaf.text.strip()} ({leaf.tag}), which is not read.',
                    'Export upright boxes, or polygons in COCO format.',
                )
        try:
            sides = [[float(box.findtext(side)) for side in ('xmin', 'ymin', 'xmax', 'ymax')] for box in boxes]
            if not sides or not all(map(math.isfinite, itertools.chain(*sides))):
                raise ValueError
        except (TypeError, ValueError):
            raise DataError(
                f'{path}: object {number} has no bndbox of 4 finite numbers.', 'Correct the file.'
            ) from None
        if not name:
            raise DataError(f'{path}: object {number} has no name.', 'Correct the file.')
        difficult = (node.findtext('difficult') or '0').strip() in ('1', 'true', 'True')
        for left, top, right, bottom in sides:  # ybat writes an object for each class, with all of its boxes
            objects.append(ImportedObject(name, [left, top, right - left, bottom - top], crowd=difficult))
        unused['difficult: ignored in training and evaluation'] += difficult * len(sides)
        words = ((child.tag, (child.text or '').strip()) for child in node if child.tag not in _KNOWN)
        unused.update(f'<{tag}> {text}' for tag, text in words if re.search(r'[^\W\d_]', text))
    try:
        size = float(root.findtext('size/width') or 0), float(root.findtext('size/height') or 0)
    except ValueError:
        size = None
    size = size if size and min(size) > 0 else None
    return ImageAnnotations(objects, (root.findtext('filename') or '').strip(), unused=+unused, size=size)
