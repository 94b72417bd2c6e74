"""JSON files are parsed as Python's own parser does it, and what cannot be read is named."""

import json
import math

import pytest

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
    ],
)
def test_what_is_not_json_is_named(content, word):
    with pytest.raises(DataError, match=word):
        parse_json(content, 'a.json')
