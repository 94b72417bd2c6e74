"""Annotation files are parsed as Python's own parser does it."""

import json
import math

import pytest

from mmstvit.datasets.coco import parse_json

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
    actual = parse_json(text.encode())
    assert actual == expected and repr(actual) == repr(expected)


def test_not_a_number():
    assert math.isnan(parse_json(b'[NaN]')[0])


@pytest.mark.parametrize('content', [b'', b'{"images": [', b'\xff', b'\xef\xbb\xbf[]', b'[1,]'])
def test_what_is_not_json_is_refused(content):
    with pytest.raises(ValueError):
        parse_json(content)
