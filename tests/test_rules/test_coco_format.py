"""Defects of COCO files that exporters write: each with its smallest input, found and repaired; the split by image."""

import contextlib
import copy
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmstvit.errors import DataError
from mmstvit.rules.coco_defects import DEFECTS
from mmstvit.rules.coco_format import find_defects, repair

POLYGON = [10, 10, 30, 10, 30, 30]
NAN = math.nan


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


# What, change of a sound file, kind of the finding, words of its message, fields of the first entry after the repair;
# None where the defect cannot be repaired.
CASES = [
    ('no annotations', lambda c: c.pop('annotations'), 'no list of annotations', (), {}),
    ('no categories', lambda c: c.pop('categories'), 'no list of categories', (), None),
    ('annotations that are null', lambda c: c.update(annotations=None), 'no list of annotations', (), {}),
    ('a category without name', append('categories', id=3), 'invalid category', ("{'id': 3}",), None),
    ('a number as name', first('categories', name=7), 'category name is a number', ('7',), category(name='7')),
    ('a category twice', copy_first('categories'), 'one category id twice', ("'a'",), category(id=1)),
    ('two categories of one id', append('categories', id=1, name='x'), 'one category id twice', ("'a'", "'x'"), None),
    ('an unused double', append('categories', id=0, name='a'), 'two categories of one name',
     ('id 1: 2 annotations', 'id 0: 0 annotations'), category(id=1)),
    ('a used double', first('categories', name='b'), 'two categories of one name', ('id 2: 2 annotations',), None),
    ('an image without name', append('images', id=9), 'invalid image entry', ('9',), None),
    ('an image twice', copy_first('images'), 'duplicate image id', ('0.png',), image(id=0)),
    ('two images of one id', copy_first('images', file_name='x.png'), 'duplicate image id', ('x.png',), None),
    ('one file of two ids', copy_first('images', id=5), 'duplicate file', ('0 and 5',), image(id=0)),
    ('one file of two sizes', copy_first('images', id=5, width=9), 'duplicate file', ('0 and 5',), None),
    ('Windows paths', windows, 'Windows path in file_name', ('all 2 of 2', 'images\\\\0.png'),
     image(file_name='images/0.png')),
    ('paths of another computer', absolute, 'absolute path in file_name', ('all 2 of 2', 'C:\\\\data'), None),
    ('a web address', first('images', file_name='https://host/0.png'), 'absolute path in file_name', ('host',), None),
    ('width -1', each('images', width=-1), 'invalid image size', ('all 2 of 2', '-1 and 32'), None),
    ('no height', remove('images', 'height'), 'invalid image size', ('missing',), None),
    ('sizes as strings', each('images', width='40'), 'invalid image size', ("'40'",), image(width=40)),
    ('sizes as floats', each('images', width=40.0), 'invalid image size', ('40.0',), image(width=40)),
    ('no image_id', remove('annotations', 'image_id'), 'invalid annotation', ('all 4 of 4',), None),
    ('image_id as string', first('annotations', image_id='0'), 'id of another type', ("'0'", ' 0', '1 of 4'),
     entry(image_id=0)),
    ('category_id as string', each('annotations', category_id='2'), 'id of another type', ("'2'",),
     entry(category_id=2)),
    ('ids of images as strings', text_ids_of_images, 'id of another type', ("is 0, but", "'0'"), entry(image_id='0')),
    ('an unknown image', first('annotations', image_id=7), 'unknown image id', ('7', 'like 0'), None),
    ('an unknown category', first('annotations', category_id=7), 'unknown category', ('7', 'like 1'), None),
    ('no id', remove('annotations', 'id'), 'invalid annotation id', ('missing',), entry(id=1)),
    ('an id that is not a number', first('annotations', id='x'), 'invalid annotation id', ("'x'",),
     entry(id=5)),
    ('id 0', first('annotations', id=0), 'annotation id 0', ('AP',), entry(id=5)),
    ('an id twice', copy_first('annotations', area=9), 'duplicate annotation id', ('1 of 5',), {}),
    ('an annotation twice', copy_first('annotations'), 'annotation listed twice', ('annotation 1',), {}),
    ('a box of strings', each('annotations', bbox=['1', '2', '3.5', '4']), 'number is a string', ('bbox',),
     entry(bbox=[1, 2, 3.5, 4])),
    ('no box', remove('annotations', 'bbox'), 'invalid box', ('missing',), entry(bbox=[10, 10, 20, 20])),
    ('no box and no mask', first('annotations', bbox=[], segmentation=[]), 'invalid box', ('[]',), None),
    ('NaN in a box', first('annotations', bbox=[1, 2, NAN, 4]), 'invalid box', ('nan',),
     entry(bbox=[10, 10, 20, 20])),
    ('infinity in a box', first('annotations', bbox=[1, 2, 1e999, 4], segmentation=[]), 'invalid box', ('inf',), None),
    ('no area', remove('annotations', 'area'), 'no area', ('missing',), entry(area=200)),
    ('no area and no mask', each('annotations', area=None, segmentation=[]), 'no area', ('None',),
     entry(area=400)),
    ('area as string', each('annotations', area='7.5'), 'number is a string', ("'7.5'",), entry(area=7.5)),
    ('NaN as area', each('annotations', area=NAN), 'no area', ('nan',), entry(area=200)),
    ('area 0', each('annotations', area=0), 'area 0', ('all 4 of 4',), entry(area=200)),
    ('no iscrowd', remove('annotations', 'iscrowd'), 'invalid iscrowd', ('missing',), entry(iscrowd=0)),
    ('iscrowd as string', each('annotations', iscrowd='0'), 'invalid iscrowd', ("'0'",), entry(iscrowd=0)),
    ('a flat polygon', masks(POLYGON), 'flat polygon', (str(POLYGON), 'all 4 of 4'),
     entry(segmentation=[POLYGON])),
    ('a nested polygon', masks([[POLYGON]]), 'nested polygon', ('[[[10',), entry(segmentation=[POLYGON])),
    ('a polygon of points', masks([[[10, 10], [30, 10], [30, 30]]]), 'polygon of points', ('[10, 10]',),
     entry(segmentation=[POLYGON])),
    ('points', masks([[10, 10], [30, 10], [30, 30]]), 'polygon of points', ('[10, 10]',),
     entry(segmentation=[POLYGON])),
    ('a polygon of strings', masks([[str(v) for v in POLYGON]]), 'number is a string', ("'10'",),
     entry(segmentation=[POLYGON])),
    ('an empty polygon', masks([[]]), 'empty polygon', ('[[]]',), entry(segmentation=[])),
    ('a line beside a polygon', masks([POLYGON, [1, 2, 3, 4]]), 'polygon below 3 points', ('6 numbers',),
     entry(segmentation=[POLYGON])),
    ('a line', masks([[1, 2, 3, 4]]), 'polygon below 3 points', ('[[1, 2, 3, 4]]',), None),
    ('an odd polygon', masks([[*POLYGON, 1]]), 'odd polygon', ('odd',), None),
    ('a flat odd polygon', masks([*POLYGON, 1]), 'odd polygon', ('odd',), None),
    ('NaN in a polygon', masks([[*POLYGON[:5], NAN]]), 'invalid mask', ('nan',), None),
    ('another mask', masks('mask.png'), 'invalid mask', ('mask.png',), None),
    ('RLE of strings', masks(dict(size=['4', '5'], counts=['8', '12'])), 'number is a string', ("'4'",),
     entry(segmentation=dict(size=[4, 5], counts=[8, 12]))),
    ('RLE without counts', masks(dict(size=[4, 5])), 'invalid mask', ('size',), None),
]  # fmt: skip


@pytest.mark.parametrize(('change', 'kind', 'words', 'repaired'), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_a_defect_is_named_once_and_repaired_or_refused(change, kind, words, repaired):
    content = sound()
    change(content)
    before = copy.deepcopy(content)
    (finding,) = (f for f in find_defects(content) if f.kind == kind)
    assert all(word in finding.message for word in words), finding.message
    assert ('--fix' in finding.remedy) is (repaired is not None) or 'size' in kind
    assert finding.count <= (finding.total or finding.count) and len(finding.examples) <= 5
    if repaired is None:
        with pytest.raises(DataError) as caught:
            repair(content)
        assert finding.message in str(caught.value)
    else:
        mended, changes = repair(content)
        assert any(change.startswith(kind) for change in changes)
        assert find_defects(mended) == [] and repair(mended) == (mended, [])
        for name, fields in repaired.items():
            assert {**mended[name][0], **fields} == mended[name][0]
        assert mended['info'] == content['info']
    assert str(content) == str(before)  # NaN is not equal to itself


def test_every_kind_of_the_table_has_a_case():
    others = {'invalid annotation file', 'another folder in file_name', 'wrong sizes in annotations'}
    assert {case[2] for case in CASES} == set(DEFECTS) - others


def text_ids(content):
    """Make the ids of images strings, which MMDetection reads if annotations have the same."""
    for image in content['images']:
        image['id'] = f'x{image["id"]}'
    for annotation in content['annotations']:
        annotation['image_id'] = f'x{annotation["image_id"]}'


def test_a_sound_file_stays_as_it_is():
    for change in (
        lambda c: None,
        masks([]),
        masks(None),
        masks(dict(size=[32, 40], counts='abc')),
        each('images', id='x'),
    ):
        content = sound()
        change(content)
        if content['images'][0]['id'] == 'x':  # ids may be strings if annotations have the same
            content['images'].pop()
            each('annotations', image_id='x')(content)
        assert find_defects(content) == []
        assert repair(content) == (content, [])


def test_the_cause_stands_before_its_consequences():
    content = sound()
    each('annotations', image_id='0', segmentation=POLYGON, iscrowd=None, bbox=None)(content)
    kinds = [finding.kind for finding in find_defects(content)]
    assert kinds == ['id of another type', 'flat polygon', 'invalid box', 'invalid iscrowd']


def test_all_that_cannot_be_repaired_is_named():
    content = sound()
    masks([[1, 2, 3, 4]])(content)
    first('images', width=0)(content)
    with pytest.raises(DataError, match='2 faults') as caught:
        repair(content)
    assert 'width and height' in str(caught.value) and '6 numbers' in str(caught.value)


def test_merged_entries_of_a_file_keep_every_object_once():
    content = sound()
    content['images'].append({**content['images'][0], 'id': 5})
    same, new = ({**content['annotations'][0], 'id': 7 + i, 'image_id': 5} for i in range(2))
    content['annotations'] += [same, {**new, 'bbox': [1, 1, 5, 5]}]
    mended, _ = repair(content)
    assert [(a['id'], a['image_id']) for a in mended['annotations']] == [(1, 0), (2, 1), (3, 0), (4, 1), (8, 0)]


def test_iscrowd_and_ids_matter_for_evaluation_alone():
    content = sound()
    remove('annotations', 'iscrowd')(content)
    first('annotations', id='x')(content)
    assert {f.severity for f in find_defects(content)} == {'fault'}
    assert {f.severity for f in find_defects(content, evaluated=False)} == {'warning'}


@pytest.mark.parametrize(
    ('content', 'word'),
    [
        (None, 'NoneType'),
        ([dict(image_id=1, score=0.5)], 'list'),
        ({}, 'images'),
        (dict(images={}), 'images is a dict'),
        (dict(images=[], annotations=3), 'annotations is a int'),
        (dict(shapes=[], imagePath='a.jpg'), 'labelme'),
        (dict(_via_img_metadata={}), 'VIA'),
    ],
)
def test_other_files_are_not_coco(content, word):
    (finding,) = find_defects(content)
    assert finding.kind == 'invalid annotation file' and word in finding.message
    with pytest.raises(DataError, match='COCO'):
        repair(content)


class TestFiles:
    @pytest.fixture
    def folder(self, tmp_path):
        """Two images of 40×32, the first in a subfolder."""
        (tmp_path / 'sub').mkdir()
        for name in ('sub/0 a.png', '1.png'):
            Image.new('L', (40, 32)).save(tmp_path / name)
        return tmp_path

    @pytest.mark.parametrize(
        ('name', 'kind'),
        [
            ('0 a.png', 'another folder in file_name'),
            ('sub/0%20a.png', 'another folder in file_name'),
            ('train/images/0 a.png', 'another folder in file_name'),
            ('SUB/0 A.PNG', 'another folder in file_name'),
            ('upload/3/1a2b3c4d-0%20a.png', 'another folder in file_name'),
            ('/data/upload/3/1a2b3c4d-0 a.png', 'absolute path in file_name'),
            ('/data/local-files/?d=sub/0%20a.png', 'absolute path in file_name'),
            ('/home/somebody/set/0 a.png', 'absolute path in file_name'),
            ('C:\\set\\0 a.png', 'absolute path in file_name'),
            ('C:/set/0 a.png', 'absolute path in file_name'),
            ('sub\\0 a.png', 'Windows path in file_name'),
            ('images\\0 a.png', 'Windows path in file_name'),
        ],
    )
    def test_a_file_is_found_by_its_name(self, folder, name, kind):
        content = sound()
        content['images'][0]['file_name'] = name
        (finding,) = find_defects(content, folder)
        assert finding.kind == kind and '0 a.png' in finding.message and '--fix' in finding.remedy
        mended, _ = repair(content, folder)
        assert mended['images'][0]['file_name'] == 'sub/0 a.png'
        assert repair(mended, folder) == (mended, [])

    def test_a_file_that_is_there_or_nowhere_is_not_a_defect(self, folder):
        for name in (str(folder / '1.png'), './1.png', 'sub/../1.png', 'nowhere.png', 'bad\x00name.png', '\ud800'):
            content = sound()
            content['images'] = [dict(id=0, file_name=name, width=40, height=32)]
            content['annotations'] = content['annotations'][::2]
            assert find_defects(content, folder) == []

    def test_a_name_in_two_folders_needs_more_of_the_path(self, folder):
        (folder / 'other').mkdir()
        Image.new('L', (40, 32)).save(folder / 'other' / '0 a.png')
        content = sound()
        content['images'][0]['file_name'] = '/x/sub/0 a.png'
        assert repair(content, folder)[0]['images'][0]['file_name'] == 'sub/0 a.png'
        content['images'][0]['file_name'] = '/x/0 a.png'
        with pytest.raises(DataError, match='another computer'):
            repair(content, folder)

    def test_two_names_are_not_one_file(self, folder):
        content = sound()
        for image, name in zip(content['images'], ('/cam1/1.png', '/cam2/1.png'), strict=True):
            image['file_name'] = name
        with pytest.raises(DataError, match=r'/cam2/1\.png.*like.*/cam1/1\.png'):
            repair(content, folder)

    def test_a_size_that_is_not_there_is_read_from_the_file(self, folder):
        content = sound()
        content['images'][0].update(file_name='sub/0 a.png', width=-1)
        del content['images'][1]['height']
        (finding,) = find_defects(content, folder)
        assert finding.kind == 'invalid image size' and finding.count == 2 and '--fix' in finding.remedy
        assert [(i['width'], i['height']) for i in repair(content, folder)[0]['images']] == [(40, 32)] * 2

    @pytest.mark.parametrize('size', [(40, 33), (32, 40), (100, 100)])
    def test_a_size_that_is_not_that_of_the_file_is_corrected(self, folder, size):
        content = self.wrong_size(size)
        (finding,) = find_defects(content, folder)
        assert finding.kind == 'wrong sizes in annotations' and finding.severity == 'fault'
        assert f'{size[0]}×{size[1]}' in finding.message and '40×32' in finding.message
        assert find_defects(content) == []  # without the files, nothing is wrong
        mended, changes = repair(content, folder)
        assert [(i['width'], i['height']) for i in mended['images']] == [(40, 32)] * 2
        assert len(changes) == 1 and repair(mended, folder) == (mended, [])
        masks([])(content)
        assert find_defects(content, folder)[0].severity == 'warning'

    @pytest.mark.parametrize(
        ('size', 'fields'),
        [
            ((80, 64), {}),  # resized images
            ((32, 40), dict(bbox=[10, 10, 20, 28])),  # a box that fits into the annotated size alone
            ((32, 40), dict(segmentation=[[10, 10, 20, 10, 20, 39]])),
            ((32, 40), dict(segmentation=dict(size=[40, 32], counts=[600, 680]))),
        ],
    )
    def test_a_size_is_not_guessed(self, folder, size, fields):
        content = self.wrong_size(size)
        content['annotations'][0].update(fields)
        with pytest.raises(DataError, match='not those of the file'):
            repair(content, folder)

    def wrong_size(self, size):
        content = sound()
        content['images'][0]['file_name'] = 'sub/0 a.png'
        each('images', width=size[0], height=size[1])(content)
        return content

    @pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
    def test_the_size_is_that_which_opencv_decodes(self, tmp_path, suffix):
        import mmcv

        exif = Image.Exif()
        exif[274] = 6  # turned by 90 degrees
        Image.new('RGB', (40, 32)).save(tmp_path / f'0.{suffix}', exif=exif)
        height, width = mmcv.imread(str(tmp_path / f'0.{suffix}')).shape[:2]
        content = sound()
        content['images'] = [dict(id=0, file_name=f'0.{suffix}', width=-1, height=-1)]
        content['annotations'] = []
        (image,) = repair(content, tmp_path)[0]['images']
        assert (image['width'], image['height']) == (width, height)


STRANGE = [None, True, 0, 1, -1, 3.0, NAN, math.inf, 10**400, 1e308, -1e308, '', '0', '1', '1e400', 'nan', '/a.jpg',
           'images\\0.png', 'C:\\a.jpg', '1.png', [], {}, [[]], [1, 2, 3, 4], [1, '2', 3, NAN], POLYGON, [POLYGON],
           [[[1, 2], [3, 4], [5, 7]]], [POLYGON, [1, 2]], [[1e308] * 6, [-1e308] * 6], [[10**300, 0, 0, 10**300, 1, 1]],
           dict(size=[32, 40], counts='0'), dict(size=['4', 5], counts=['20']), dict(id=1, name='a')]  # fmt: skip
VALUES = st.sampled_from(STRANGE) | st.recursive(
    st.sampled_from(STRANGE), lambda parts: st.lists(parts, max_size=6), max_leaves=8
)


@st.composite
def mutated(draw):
    """Draw a sound file of which fields, entries or lists are replaced, removed or repeated."""
    content = sound()
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(['images', 'annotations', 'annotations', 'categories']))
        entries = content.get(name)
        what = draw(st.sampled_from(['field'] * 8 + ['remove', 'repeat', 'entry', 'list']))
        if what == 'list' or not isinstance(entries, list) or not entries:
            content[name] = draw(VALUES)
            continue
        index = draw(st.integers(0, len(entries) - 1))
        entry = entries[index]
        if what == 'entry' or not isinstance(entry, dict) or not entry:
            entries[index] = draw(VALUES)
        elif what == 'repeat':
            entries.append(copy.deepcopy(entry))
        else:
            field = draw(st.sampled_from(sorted(entry)))
            entry[field] = draw(VALUES)
            if what == 'remove':
                del entry[field]
    return content


def check(content):
    """Check that a file is either repaired for good or refused with every reason."""
    before = repr(content)
    findings = find_defects(content)
    try:
        mended, changes = repair(content)
    except DataError as error:
        reasons = [f for f in findings if '--fix' not in f.remedy or 'size' in f.kind]
        assert reasons and all(f.message in str(error) for f in reasons if 'size' not in f.kind)
    else:
        assert len(changes) == len(findings)
        assert find_defects(mended) == []
        assert repr(repair(mended)) == repr((mended, []))
        json.dumps([mended[name] for name in ('images', 'annotations')])
    assert repr(content) == before


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated() | VALUES)
def test_any_content_is_repaired_or_refused(content):
    check(content)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([case for case in CASES if case[4] is not None]), min_size=2, max_size=5))
def test_several_defects_are_repaired_together(cases):
    content = sound()
    for case in cases:
        with contextlib.suppress(AttributeError, KeyError, TypeError):  # an earlier change removed what it needs
            case[1](content)
    check(content)
