"""Table of what exporters write into COCO files: how to plant it, what is found, and what ``--fix`` makes of it.

``test_coco_format.py`` plants every row in a small file, ``test_verify.py`` one of each kind in a data set,
``coco_cases.py`` and ``test_new_config.py`` a few for the commands.
"""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

POLYGON = [10, 10, 30, 10, 30, 30]
NAN = math.nan
HUGE = 10**400  # beyond float
WARNINGS = ('no list of annotations', 'annotation id 0', 'area 0')  # kinds; those of the others are faults


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
        return 'warning' if self.kind in WARNINGS else 'fault'


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
    ('no annotations', lambda c: c.pop('annotations'), 'no list of annotations', (), {}),
    ('no categories', lambda c: c.pop('categories'), 'no list of categories', (), None),
    ('annotations that are null', lambda c: c.update(annotations=None), 'no list of annotations', (), {}),
    # Categories.
    ('a category without name', append('categories', id=3), 'invalid category', ("{'id': 3}",), None),
    ('a number as name', first('categories', name=7), 'category name is a number', ('7',), category(name='7')),
    ('a category twice', copy_first('categories'), 'one category id twice', ("'a'",), category(id=1)),
    ('two categories of one id', append('categories', id=1, name='x'), 'one category id twice', ("'a'", "'x'"), None),
    ('an unused double', append('categories', id=0, name='a'), 'two categories of one name',
     ('id 1: 2 annotations', 'id 0: 0 annotations'), category(id=1)),
    ('a used double', first('categories', name='b'), 'two categories of one name', ('id 2: 2 annotations',), None),
    # Images.
    ('an image without name', append('images', id=9), 'invalid image entry', ('9',), None),
    ('an image twice', copy_first('images'), 'duplicate image id', ('0.png',), image(id=0)),
    ('two images of one id', copy_first('images', file_name='x.png'), 'duplicate image id', ('x.png',), None),
    ('one file of two ids', copy_first('images', id=5), 'duplicate file', ('0 and 5',), image(id=0)),
    ('one file of two sizes', copy_first('images', id=5, width=9), 'duplicate file', ('0 and 5',), None),
    ('Windows paths', windows, 'wrong path in file_name', ('all 2', 'images\\\\0.png'),
     image(file_name='images/0.png')),
    ('paths of another computer', absolute, 'wrong path in file_name', ('all 2', 'C:\\\\data'), None),
    ('a web address', first('images', file_name='https://host/0.png'), 'wrong path in file_name', ('host',), None),
    ('width -1', each('images', width=-1), 'invalid image size', ('all 2', '-1 and 32'), None),
    ('a width beyond float', each('images', width=HUGE), 'invalid image size', ('all 2', '1000'), None),
    ('no height', remove('images', 'height'), 'invalid image size', ('missing',), None),
    ('sizes as strings', each('images', width='40'), 'invalid image size', ("'40'",), image(width=40)),
    ('sizes as floats', each('images', width=40.0), 'invalid image size', ('40.0',), image(width=40)),
    # Ids of annotations.
    ('no image_id', remove('annotations', 'image_id'), 'invalid annotation', ('all 4',), None),
    ('image_id as string', first('annotations', image_id='1'), 'id of another type', ("'1'", ' 1', '1 of 4'),
     entry(image_id=1)),
    ('category_id as string', each('annotations', category_id='2'), 'id of another type', ("'2'",),
     entry(category_id=2)),
    ('ids of images as strings', text_ids_of_images, 'id of another type', ("image_id is 0", "'0'"),
     entry(image_id='0')),
    ('an unknown image', first('annotations', image_id=7), 'unknown image id', ('7', 'like 0'), None),
    ('an unknown category', first('annotations', category_id=7), 'unknown category', ('7', 'like 1'), None),
    ('no id', remove('annotations', 'id'), 'invalid annotation id', ('missing',), entry(id=1)),
    ('an id that is not a number', first('annotations', id='x'), 'invalid annotation id', ("'x'",),
     entry(id=5)),
    ('id 0', first('annotations', id=0), 'annotation id 0', ('AP',), entry(id=5)),
    ('an id twice', copy_first('annotations', area=9), 'duplicate annotation id', ('1 of 5',), {}),
    ('an annotation twice', copy_first('annotations'), 'annotation listed twice', ('annotation 1',), {}),
    # Boxes, areas and iscrowd.
    ('a box of strings', each('annotations', bbox=['1', '2', '3.5', '4']), 'number is a string', ('bbox',),
     entry(bbox=[1, 2, 3.5, 4])),
    ('no box', remove('annotations', 'bbox'), 'invalid box', ('missing',), entry(bbox=[10, 10, 20, 20])),
    ('no box and no mask', first('annotations', bbox=[], segmentation=[]), 'invalid box', ('[]',), None),
    ('NaN in a box', first('annotations', bbox=[1, 2, NAN, 4]), 'invalid box', ('nan',),
     entry(bbox=[10, 10, 20, 20])),
    ('infinity in a box', first('annotations', bbox=[1, 2, 1e999, 4], segmentation=[]), 'invalid box', ('inf',), None),
    ('a side beyond float', first('annotations', bbox=[1, 2, HUGE, 4]), 'invalid box', ('1000',),
     entry(bbox=[10, 10, 20, 20])),
    ('an area beyond float', each('annotations', area=HUGE), 'no area', ('1000',), entry(area=200)),
    ('no area', remove('annotations', 'area'), 'no area', ('missing',), entry(area=200)),
    ('no area and no mask', each('annotations', area=None, segmentation=[]), 'no area', ('None',),
     entry(area=400)),
    ('area as string', each('annotations', area='7.5'), 'number is a string', ("'7.5'",), entry(area=7.5)),
    ('NaN as area', each('annotations', area=NAN), 'no area', ('nan',), entry(area=200)),
    ('area 0', each('annotations', area=0), 'area 0', ('all 4',), entry(area=200)),
    ('no iscrowd', remove('annotations', 'iscrowd'), 'invalid iscrowd', ('missing',), entry(iscrowd=0)),
    ('iscrowd as string', each('annotations', iscrowd='0'), 'invalid iscrowd', ("'0'",), entry(iscrowd=0)),
    # Masks.
    ('a flat polygon', masks(POLYGON), 'polygons in another form', (str(POLYGON), 'all 4'),
     entry(segmentation=[POLYGON])),
    ('a nested polygon', masks([[POLYGON]]), 'polygons in another form', ('[[[10',), entry(segmentation=[POLYGON])),
    ('a polygon of points', masks([[[10, 10], [30, 10], [30, 30]]]), 'polygons in another form', ('[10, 10]',),
     entry(segmentation=[POLYGON])),
    ('points', masks([[10, 10], [30, 10], [30, 30]]), 'polygons in another form', ('[10, 10]',),
     entry(segmentation=[POLYGON])),
    ('a polygon of strings', masks([[str(v) for v in POLYGON]]), 'number is a string', ("'10'",),
     entry(segmentation=[POLYGON])),
    ('an empty polygon', masks([[]]), 'polygons in another form', ('[[]]',), entry(segmentation=[])),
    ('a line next to a polygon', masks([POLYGON, [1, 2, 3, 4]]), 'polygon below 3 points', ('6 numbers',),
     entry(segmentation=[POLYGON])),
    ('a line', masks([[1, 2, 3, 4]]), 'polygon below 3 points', ('[[1, 2, 3, 4]]',), None),
    ('an odd polygon', masks([[*POLYGON, 1]]), 'invalid mask', ('pairs',), None),
    ('a corner beyond float', masks([[*POLYGON[:5], HUGE]]), 'invalid mask', ('1000',), None),
    ('a flat odd polygon', masks([*POLYGON, 1]), 'invalid mask', ('pairs',), None),
    ('NaN in a polygon', masks([[*POLYGON[:5], NAN]]), 'invalid mask', ('nan',), None),
    ('another mask', masks('mask.png'), 'invalid mask', ('mask.png',), None),
    ('RLE of strings', masks(dict(size=['4', '5'], counts=['8', '12'])), 'number is a string', ("'4'",),
     entry(segmentation=dict(size=[4, 5], counts=[8, 12]))),
    *[
        (f'RLE of {counts!r:.12}', masks(dict(size=[64, 64], counts=counts)), 'invalid mask', ('size',), None)
        for counts in ('~~', '\xff\xfe' * 50, 'P' * 5000, '0001', [-1, 4097], [3, 4], [], '')
    ],
    ('RLE without counts', masks(dict(size=[4, 5])), 'invalid mask', ('size',), None),
]]  # fmt: skip


# Why no object of a file is learned: what, how to plant it, the reason that is counted.
UNUSABLE = [
    ('no annotation', lambda c: c['annotations'].clear(), 'has 4 images and no annotation'),
    ('crowds alone', each('annotations', iscrowd=1), '4 crowd'),
    ('boxes without width', each('annotations', bbox=[4, 5, 0, 6]), '4 box below 1 pixel'),
    ('ignored objects', each('annotations', ignore=1), '4 ignore=1'),
]


def find(what: str) -> Defect:
    """Return a row by its name."""
    (row,) = [row for row in DEFECTS if row.what == what]
    return row


def one_of_each_kind() -> list[Defect]:
    """Return the first row of every kind."""
    return list({row.kind: row for row in reversed(DEFECTS)}.values())
