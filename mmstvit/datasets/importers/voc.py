"""XML files of Pascal VOC: a file per image, with the boxes of its objects."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import ParseError, parse

from mmstvit.errors import DataError

from .coco_table import CocoTable


@dataclass(frozen=True)
class VocObject:
    """An object of an XML file.

    Args:
        name: Its class.
        box: Left, top, right, bottom, as in the file.
        difficult: It counts neither in training nor in evaluation.
    """

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


def parse_voc(path: Path) -> tuple[str, list[VocObject]] | None:
    """Parse a file; returns ``filename`` (may be empty) and the objects. None if it is XML of another kind.

    Raises:
        DataError: The file is not XML, or an object has no class or box.
    """
    try:
        root = parse(path).getroot()
    except (OSError, ParseError, DefusedXmlException, UnicodeError, ValueError) as error:
        raise DataError(f'{path} is not a sound XML file: {error}.', 'Repair or remove the file.') from error
    if root.tag != 'annotation':
        return None
    objects = []
    for number, node in enumerate(root.findall('object'), 1):
        name = (node.findtext('name') or '').strip()
        box = node.find('bndbox')
        try:
            corners = tuple(float(box.findtext(side)) for side in ('xmin', 'ymin', 'xmax', 'ymax'))
        except (AttributeError, TypeError, ValueError):
            raise DataError(f'{path}: object {number} has no bndbox of four numbers.', 'Correct the file.') from None
        if not name:
            raise DataError(f'{path}: object {number} has no name.', 'Correct the file.')
        objects.append(VocObject(name, corners, (node.findtext('difficult') or '0').strip() in ('1', 'true', 'True')))
    return (root.findtext('filename') or '').strip(), objects


def read_voc(root: Path, objects: Mapping[str, Sequence[VocObject]], classes: Sequence[str]) -> CocoTable:
    """Make a table of images and their objects.

    A box is [xmin, ymin, xmax − xmin, ymax − ymin] with the numbers of the file. VOC's own files count pixels from 1,
    most tools from 0; MMDetection's VOCDataset (tried: 3.5.1) subtracts 1 from all four numbers, of any file.

    Args:
        root: Folder of the data set.
        objects: Image -> its objects.
        classes: Names of the classes.
    """
    table, labels = CocoTable(root, classes), {name: i for i, name in enumerate(classes)}
    for image, found in objects.items():
        table.add_image(image)
        for item in found:
            left, top, right, bottom = item.box
            table.unused['difficult: ignored in training and evaluation'] += item.difficult
            table.add_object(labels[item.name], [left, top, right - left, bottom - top], crowd=item.difficult)
    table.unused = +table.unused
    return table
