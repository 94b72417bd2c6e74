"""JSON files are parsed as Python's own parser does it, and what cannot be read is named."""

import json
import math

import pytest

from mmstvit.datasets.importers import (
    YoloLabels,
    find_shapes,
    is_label_file,
    read_labelme,
    read_voc,
    read_yolo,
    read_yolo_yaml,
)
from mmstvit.datasets.json_files import parse_json
from mmstvit.errors import DataError

from .tiny_data import coco_content


@pytest.mark.parametrize(
    'text',
    [
        json.dumps(coco_content()),
        '{"a": 1, "a": [1.5, -0.0, 1e-5, true, null, "\\u00e9"]}',
        '[1e999, -Infinity]',  # the rest is refused by the fast parser
        r'"\ud800"',
    ],
)
def test_content_is_that_of_pythons_parser(text):
    expected = json.loads(text)
    actual = parse_json(text.encode(), 'a.json')
    assert actual == expected and repr(actual) == repr(expected)


def test_not_a_number():
    assert math.isnan(parse_json(b'[NaN]', 'a.json')[0])


@pytest.mark.parametrize('digits', [400, 5000])
def test_integers_beyond_float_are_infinite(digits):
    """Checks of numbers find infinity; such an integer would raise OverflowError in any computation."""
    assert parse_json(b'[-1%b, 12]' % (b'0' * digits), 'a.json') == [-math.inf, 12]


@pytest.mark.parametrize(
    ('content', 'word'),
    [
        (b'', 'is empty'),
        (b'{"images": [', 'cut off at line 1'),
        (b'{"a": 1}\n{"a": 2}\n', 'a JSON value in each line'),
        (b'\xff', 'not in UTF-8'),
        (b'\xff\xfe[\x00]\x00', 'UTF-16'),
        (b'[1,]', 'line 1, column'),
        (b'<!DOCTYPE html>', 'web page'),
        (b'version https://git-lfs.github.com/spec/v1', 'Git LFS'),
        (b'[' * 5000 + b']' * 5000, 'nested too deeply'),
    ],
)
def test_what_is_not_json_is_named(content, word):
    with pytest.raises(DataError, match=word):
        parse_json(content, 'a.json')


@pytest.mark.parametrize(
    'text',
    [
        'names: [!!bool x, b]',
        'names: [a]\nnc: !!timestamp x',
        'names: [!!int "", b]',
        'names: {2020-01-01: a, 2020-01-01 10:00:00: b}',
        f'names: [0x{"f" * 5000}]\nnc: 1',
    ],
)
def test_yaml_at_which_the_parser_fails(tmp_path, text):
    (tmp_path / 'data.yaml').write_text(text)
    with pytest.raises(DataError, match=r'data\.yaml'):
        read_yolo_yaml(tmp_path / 'data.yaml')


def test_a_yaml_file_of_yolo_may_have_names_alone(tmp_path):
    for text, names in {'names: [bolt, nut]': ['bolt', 'nut'], 'names: [a]\nauthor: b': None}.items():
        (tmp_path / 'data.yaml').write_text(text)
        found = read_yolo_yaml(tmp_path / 'data.yaml')
        assert (found and found.names) == names


_VOC = '<annotation><object><name>a</name><bndbox>{}</bndbox></object></annotation>'


@pytest.mark.parametrize(
    'text',
    [
        '<?xml version="1.0" encoding="foo"?><annotation/>',
        '<?xml version="1.0" encoding="hex"?><annotation/>',
        _VOC.format('<xmin>1e999</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>'),
        _VOC.format('<xmin>nan</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax>'),
    ],
)
def test_voc_that_cannot_be_read(tmp_path, text):
    (tmp_path / 'a.xml').write_text(text)
    with pytest.raises(DataError, match=r'a\.xml'):
        read_voc(tmp_path / 'a.xml')


@pytest.mark.parametrize('number', ['1' + '0' * 400, '1' * 5000, '1e999', 'NaN'])
def test_labelme_with_numbers_beyond_float(tmp_path, number):
    (tmp_path / 'a.json').write_text(f'{{"shapes": [{{"label": "a", "points": [[1, 2], [{number}, 2], [3, 4]]}}]}}')
    with pytest.raises(DataError, match=r'a\.json: shape 1'):
        read_labelme(tmp_path / 'a.json')


@pytest.mark.parametrize('keypoints', [False, True])
@pytest.mark.parametrize(
    'line',
    [
        '0 1..2 .5 .5 .5',
        '0 . . . .',
        f'{"1" * 400} .5 .5 .5 .5',
        f'{"1" * 5000} .5 .5 .5 .5',
        *('0 1e999 .5 .5 .5', '\u0663 1 1 1 1'),
    ],
)
def test_yolo_with_other_numbers(tmp_path, line, keypoints):
    (tmp_path / 'a.txt').write_text(line)
    is_label_file(tmp_path / 'a.txt')
    find_shapes([tmp_path / 'a.txt'])
    with pytest.raises(DataError, match=r'a\.txt, line 1'):
        read_yolo(tmp_path / 'a.txt', YoloLabels(['a'], keypoints=keypoints))


@pytest.mark.parametrize(
    'text',
    ['a: &a [x, x]\nnames: [*a, *a]\nnc: 2', f'names: {"[" * 3000}{"]" * 3000}', f'names: [a]\nnc: {"1" * 5000}'],
    ids=['aliases', 'nested', 'digits'],
)
def test_yaml_that_would_fill_the_memory(tmp_path, text):
    (tmp_path / 'data.yaml').write_text(text)
    with pytest.raises(DataError, match='is not a sound YAML file'):
        read_yolo_yaml(tmp_path / 'data.yaml')
