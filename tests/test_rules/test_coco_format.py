"""Defects of COCO files that exporters write: each with its smallest input, found and repaired; the split by image."""

import contextlib
import copy
import json
import math

import pycocotools.mask
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mmstvit.errors import DataError
from mmstvit.rules.coco_format import find_defects, repair
from mmstvit.rules.coco_notes import CHANGES
from mmstvit.rules.coco_values import rle_areas

from .coco_defects import DEFECTS, NAN, POLYGON, each, first, masks, remove, sound


@pytest.mark.parametrize('defect', DEFECTS, ids=lambda defect: defect.what)
def test_a_defect_is_named_once_and_repaired_or_refused(defect):
    content = sound()
    defect.plant(content)
    before = copy.deepcopy(content)
    (finding,) = (f for f in find_defects(content) if f.kind == defect.kind)
    assert finding.severity == defect.severity
    assert all(word in finding.message for word in defect.words), finding.message
    assert ('--fix' in finding.remedy) is (defect.fixed is not None) or 'size' in defect.kind
    assert finding.count <= (finding.total or finding.count)
    if defect.fixed is None:
        with pytest.raises(DataError) as caught:
            repair(content)
        assert finding.message in str(caught.value)
    else:
        repaired, changes = repair(content)
        assert any(change.startswith(defect.kind) for change in changes)
        assert find_defects(repaired) == [] and repair(repaired) == (repaired, [])
        for name, fields in defect.fixed.items():
            assert {**repaired[name][0], **fields} == repaired[name][0]
        assert repaired['info'] == content['info']
    assert str(content) == str(before)  # NaN is not equal to itself


def test_every_repair_has_a_row():
    others = {'wrong sizes in annotations', 'dropped annotations'}
    assert {defect.kind for defect in DEFECTS if defect.fixed is not None} == set(CHANGES) - others


def test_a_sound_file_stays_as_it_is():
    for change in (
        lambda c: None,
        masks([]),
        masks(None),
        masks(dict(size=[32, 40], counts='PX1')),
        each('images', id='x'),
    ):
        content = sound()
        change(content)
        if content['images'][0]['id'] == 'x':  # ids may be strings if annotations have the same
            content['images'].pop()
            each('annotations', image_id='x')(content)
        assert find_defects(content) == []
        assert repair(content) == (content, [])


def test_all_that_cannot_be_repaired_is_named_causes_first():
    content = sound()
    each('annotations', image_id='0', segmentation=[[1, 2, 3, 4]], iscrowd=None, bbox=None)(content)
    first('images', width=0)(content)
    kinds = [finding.kind for finding in find_defects(content)]
    assert kinds == ['value of another type', 'invalid image size', 'invalid mask', 'invalid box']
    with pytest.raises(DataError, match='3 faults') as caught:
        repair(content)
    assert 'width and height' in str(caught.value) and '3 or more points' in str(caught.value)


@pytest.mark.parametrize(
    'fields', [dict(bbox=[0, 0, 0, 0], area=0), dict(bbox=[90, 0, 5, 5]), dict(bbox=[1, 1, 9, 0.5])]
)
def test_objects_that_only_evaluation_counts_are_removed(fields):
    """With them no model reaches an AP of 1; a crowd counts in neither."""
    content = sound()
    for annotation, crowd in zip(content['annotations'], (0, 1, 0, 0), strict=True):
        annotation.update(fields if annotation['id'] < 3 else {}, iscrowd=crowd, segmentation=[])
    repaired, (change,) = repair(content)
    assert [annotation['id'] for annotation in repaired['annotations']] == [2, 3, 4]
    assert change == 'dropped annotations: removed the objects (1 of 4), first: annotation 1'
    assert repair(repaired) == (repaired, [])


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
        ('name', 'reason'),
        [
            ('0 a.png', 'another folder'),
            ('sub/0%20a.png', 'another folder'),
            ('SUB/0 A.PNG', 'another folder'),
            ('upload/3/1a2b3c4d-0%20a.png', 'another folder'),
            ('/data/upload/3/1a2b3c4d-0 a.png', 'another computer'),
            ('/data/local-files/?d=sub/0%20a.png', 'another computer'),
            ('C:\\set\\0 a.png', 'another computer'),
            ('C:/set/0 a.png', 'another computer'),
            ('images\\0 a.png', 'Windows'),
        ],
    )
    def test_a_file_is_found_by_its_name(self, folder, name, reason):
        content = sound()
        content['images'][0]['file_name'] = name
        (finding,) = find_defects(content, folder)
        assert finding.kind == 'wrong path in file_name' and '--fix' in finding.remedy
        assert f'{reason}:' in finding.message.replace(' path:', ':') and '0 a.png' in finding.message
        repaired, _ = repair(content, folder)
        assert repaired['images'][0]['file_name'] == 'sub/0 a.png'
        assert repair(repaired, folder) == (repaired, [])

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
        with pytest.raises(DataError, match=r'file_name is a path .*/cam2/1\.png.*/cam1/1\.png'):
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
        repaired, changes = repair(content, folder)
        assert [(i['width'], i['height']) for i in repaired['images']] == [(40, 32)] * 2
        assert len(changes) == 1 and repair(repaired, folder) == (repaired, [])
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
        repaired, changes = repair(content)
    except DataError as error:
        reasons = [f for f in findings if '--fix' not in f.remedy or 'size' in f.kind]
        assert reasons and all(f.message in str(error) for f in reasons if 'size' not in f.kind)
    else:
        assert len([line for line in changes if 'dropped annotations' not in line]) == len(findings)
        assert find_defects(repaired) == []
        assert repr(repair(repaired)) == repr((repaired, []))
        json.dumps([repaired[name] for name in ('images', 'annotations')])
    assert repr(content) == before


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated() | VALUES)
def test_any_content_is_repaired_or_refused(content):
    check(content)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([defect for defect in DEFECTS if defect.fixed is not None]), min_size=2, max_size=5))
def test_several_defects_are_repaired_together(defects):
    content = sound()
    for defect in defects:
        with contextlib.suppress(AttributeError, KeyError, TypeError):  # an earlier change removed what it needs
            defect.plant(content)
    check(content)


RUNS = st.lists(st.integers(0, 5000), min_size=1, max_size=40).filter(any)


@given(st.lists(RUNS, min_size=1, max_size=5), st.integers(0, 400), st.sampled_from('0Po~\x00'))
def test_areas_are_those_of_pycocotools_and_damage_stays_in_its_mask(runs, position, character):
    masks = []
    for counts in runs:
        encoded = pycocotools.mask.frPyObjects(dict(size=[1, sum(counts)], counts=counts), 1, sum(counts))
        masks.append(dict(size=[1, sum(counts)], counts=encoded['counts'].decode()))
    areas = [sum(counts[1::2]) for counts in runs]
    assert rle_areas(masks) == areas == [pycocotools.mask.area(mask) for mask in masks]
    assert rle_areas([dict(mask, counts=counts) for mask, counts in zip(masks, runs, strict=True)]) == areas
    code = masks[0]['counts']
    position %= len(code)
    damaged = dict(masks[0], counts=code[:position] + character + code[position + 1 :])
    assert rle_areas([damaged, *masks])[1:] == areas
    assert rle_areas([damaged]) == [expected_area(damaged)]


def expected_area(mask: dict) -> int | None:
    """Decode one mask, run by run; None if it is damaged."""
    runs, value, shift = [], 0, 0
    for character in mask['counts']:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 30:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits >> 4) << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    sound = not shift and min(runs) >= 0 and sum(runs) == mask['size'][0] * mask['size'][1]
    return sum(runs[1::2]) if sound else None
