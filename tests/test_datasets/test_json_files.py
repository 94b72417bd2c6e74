"""JSON files are parsed as Python's own parser does it, and what cannot be read is named."""

import json
import math

import pytest

from mmstvit.datasets.importers.yolo import read_yolo_yaml
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


@pytest.mark.parametrize(
    ('content', 'word'),
    [
        (b'', 'is empty'),
        (b'{"images": [', 'cut off at line 1'),
        (b'\xff', 'not in UTF-8'),
        (b'\xff\xfe[\x00]\x00', 'UTF-16'),
        (b'[1,]', 'line 1, column'),
        (b'<!DOCTYPE html>', 'web page'),
        (b'version https://git-lfs.github.com/spec/v1', 'Git LFS'),
        (b'[' * 5000 + b']' * 5000, 'nested too deeply'),
        (b'1' * 5000, 'a number that cannot be read'),
    ],
)
def test_what_is_not_json_is_named(content, word):
    with pytest.raises(DataError, match=word):
        parse_json(content, 'a.json')


@pytest.mark.parametrize(
    'text',
    ['a: &a [x, x]\nnames: [*a, *a]\nnc: 2', f'names: {"[" * 3000}{"]" * 3000}', f'names: [a]\nnc: {"1" * 5000}'],
    ids=['aliases', 'nested', 'digits'],
)
def test_yaml_that_would_fill_the_memory(tmp_path, text):
    (tmp_path / 'data.yaml').write_text(text)
    with pytest.raises(DataError, match='is not a YAML file'):
        read_yolo_yaml(tmp_path / 'data.yaml')
