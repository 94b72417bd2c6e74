"""Table of what exporters write into COCO files: how to plant it, what is found, and what ``--fix`` makes of it.

``test_coco_format.py`` plants every row in a small file, ``coco_cases.py`` and ``test_new_config.py`` a few for the
commands.
"""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

POLYGON = [10, 10, 30, 10, 30, 30]
POINTS = [[10, 10], [30, 10], [30, 30]]
NAN = math.nan
WARNINGS = ('annotations that are null', 'id 0', 'area 0')  # those of the others are faults


class Defect(NamedTuple):
    """A defect of an annotation file.

    Args:
        what: What is wrong.
        plant: Changes a sound file.
        kind: Kind of the finding.
        words: What its message contains, for :func:`sound`.
        fixed: Fields of the first image, annotation or category after the repair; None if there is no repair.
    """

    what: str
    plant: Callable[[dict], object]
    kind: str
    words: tuple[str, ...]
    fixed: dict[str, dict] | None

    @property
    def severity(self) -> str:
        """Severity of the finding."""
        return 'warning' if self.what in WARNINGS else 'fault'


def sound() -> dict:
    """Two images with two objects each, of two classes."""
    return dict(
        info=dict(year=2026),
        images=[dict(id=i, file_name=f'{i}.png', width=40, height=32) for i in range(2)],
        categories=[dict(id=1, name='a'), dict(id=2, name='b')],
        annotations=[
            dict(id=i + 1, image_id=i % 2, category_id=1 + i // 2, bbox=[10, 10, 20, 20], area=200, iscrowd=0,
                 segmentation=[POLYGON])
            for i in range(4)
        ],
    )  # fmt: skip


def each(name, /, **fields):
    """Change fields of all entries of a list."""
    return lambda content: [entry.update(copy.deepcopy(fields)) for entry in content[name]]


def first(name, /, **fields):
    return lambda content: content[name][0].update(fields)


def remove(name, field):
    return lambda content: [entry.pop(field) for entry in content[name]]


def append(name, /, **entry):
    return lambda content: content[name].append(entry)


def copy_first(name, /, **fields):
    return lambda content: content[name].append({**content[name][0], **fields})


def masks(mask):
    return each('annotations', segmentation=mask)


def absolute(content):
    for image in content['images']:
        image['file_name'] = f'C:\\data\\{image["file_name"]}'


def windows(content):
    for image in content['images']:
        image['file_name'] = f'images\\{image["file_name"]}'


def text_ids_of_images(content):
    for image in content['images']:
        image['id'] = str(image['id'])


def entry(**fields):
    """Expect fields of the first annotation after the repair."""
    return dict(annotations=fields)


def image(**fields):
    return dict(images=fields)


def category(**fields):
    return dict(categories=fields)


DEFECTS = [Defect(*row) for row in [
    # The file.
    ('no categories', lambda c: c.pop('categories'), 'invalid annotation file', ('no list categories',), None),
    ('annotations that are null', lambda c: c.update(annotations=None), 'no list of annotations', (), {}),
    # Categories.
    ('a category without name', append('categories', id=3), 'missing field', ("{'id': 3}", '1 of 3'), None),
    ('a number as name', first('categories', name=7), 'value of another type', ('name is 7',), category(name='7')),
    ('a category twice', copy_first('categories'), 'duplicate category', ("'a'",), category(id=1)),
    ('two categories of one id', append('categories', id=1, name='x'), 'duplicate category', ("'a'", "'x'"), None),
    ('an unused double', append('categories', id=0, name='a'), 'duplicate category',
     ('id 1: 2 annotations', 'id 0: 0 annotations'), category(id=1)),
    ('a used double', first('categories', name='b'), 'duplicate category', ('id 2: 2 annotations',), None),
    # Images.
    ('an image without name', append('images', id=9), 'missing field', ('9', '1 of 3'), None),
    ('an image twice', copy_first('images'), 'duplicate image', ('0.png',), image(id=0)),
    ('two images of one id', copy_first('images', file_name='x.png'), 'duplicate image', ('x.png',), None),
    ('one file of two ids', copy_first('images', id=5), 'duplicate image', ("'0.png' of id 5", 'id 0'), None),
    ('Windows paths', windows, 'wrong path in file_name', ('all 2', 'images\\\\0.png'),
     image(file_name='images/0.png')),
    ('paths of another computer', absolute, 'wrong path in file_name', ('all 2', 'C:\\\\data'), None),
    ('a web address', first('images', file_name='https://host/0.png'), 'wrong path in file_name', ('host',), None),
    ('width -1', each('images', width=-1), 'invalid image size', ('all 2', '-1 and 32'), None),
    ('no height', remove('images', 'height'), 'invalid image size', ('missing',), None),
    ('sizes as strings', each('images', width='40'), 'invalid image size', ("'40'",), image(width=40)),
    ('sizes as floats', each('images', width=40.0), 'invalid image size', ('40.0',), image(width=40)),
    # Ids of annotations.
    ('no image_id', remove('annotations', 'image_id'), 'missing field', ('all 4',), None),
    ('image_id as string', first('annotations', image_id='1'), 'value of another type', ("'1'", ' 1', '1 of 4'),
     entry(image_id=1)),
    ('category_id as string', each('annotations', category_id='2'), 'value of another type', ("'2'",),
     entry(category_id=2)),
    ('ids of images as strings', text_ids_of_images, 'value of another type', ('image_id is 0', "'0'"),
     entry(image_id='0')),
    ('an unknown image', first('annotations', image_id=7), 'unknown id', ('image_id is 7', 'like 0'), None),
    ('an unknown category', first('annotations', category_id=7), 'unknown id', ('category_id is 7', 'like 1'), None),
    ('no id', remove('annotations', 'id'), 'invalid annotation id', ('missing',), entry(id=1)),
    ('an id that is not a number', first('annotations', id='x'), 'invalid annotation id', ("'x'",), entry(id=5)),
    ('id 0', first('annotations', id=0), 'annotation id 0', ('AP',), entry(id=5)),
    ('an id twice', copy_first('annotations', area=9), 'duplicate annotation id', ('1 of 5',), {}),
    ('an annotation twice', copy_first('annotations'), 'duplicate annotation id', ('annotation 1',), {}),
    # Boxes, areas and iscrowd.
    ('a box of strings', each('annotations', bbox=['1', '2', '3.5', '4']), 'value of another type', ('bbox',),
     entry(bbox=[1, 2, 3.5, 4])),
    ('no box', remove('annotations', 'bbox'), 'invalid box', ('missing',), entry(bbox=[10, 10, 20, 20])),
    ('no box and no mask', first('annotations', bbox=[], segmentation=[]), 'invalid box', ('[]',), None),
    ('NaN in a box', first('annotations', bbox=[1, 2, NAN, 4]), 'invalid box', ('nan',),
     entry(bbox=[10, 10, 20, 20])),
    ('no area', remove('annotations', 'area'), 'invalid area', ('missing',), entry(area=200)),
    ('no area and no mask', each('annotations', area=None, segmentation=[]), 'invalid area', ('None',),
     entry(area=400)),
    ('area as string', each('annotations', area='7.5'), 'value of another type', ("'7.5'",), entry(area=7.5)),
    ('area 0', each('annotations', area=0), 'invalid area', ('all 4',), entry(area=200)),
    ('no iscrowd', remove('annotations', 'iscrowd'), 'invalid iscrowd', ('missing',), entry(iscrowd=0)),
    ('iscrowd as string', each('annotations', iscrowd='0'), 'invalid iscrowd', ("'0'",), entry(iscrowd=0)),
    # Masks.
    *[
        (f'{mask!r:.30}', masks(mask), 'invalid mask', (repr(mask)[:12], 'all 4'), entry(segmentation=[POLYGON]))
        for mask in (POLYGON, [[POLYGON]], [[POINTS]], POINTS, [[str(v) for v in POLYGON]], [POLYGON, [1, 2, 3, 4]])
    ],
    ('an empty polygon', masks([[]]), 'invalid mask', ('[[]]',), entry(segmentation=[])),
    *[
        (f'{mask!r:.40}', masks(mask), 'invalid mask', ('all 4',), None)
        for mask in ([[1, 2, 3, 4]], [[*POLYGON, 1]], [[*POLYGON[:5], NAN]], 'mask.png', dict(size=[4, 5]),
                     dict(size=['4', '5'], counts=[20]))
    ],
    *[
        (f'RLE of {counts!r:.12}', masks(dict(size=[64, 64], counts=counts)), 'invalid mask', ('size',), None)
        for counts in ('~~', '\xff\xfe' * 50, 'P' * 5000, '0001', [-1, 4097], [3, 4], [], '')
    ],
]]  # fmt: skip


def find(what: str) -> Defect:
    """Return a row by its name."""
    (row,) = [row for row in DEFECTS if row.what == what]
    return row
