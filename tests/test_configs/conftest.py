"""Configs are read without parsing the index of MMDetection again for every base."""

import functools
from collections.abc import Iterator
from unittest import mock

import mmengine.config.utils
import pytest


@pytest.fixture(scope='package', autouse=True)
def cached_index() -> Iterator[None]:
    """Read each ``metafile.yml`` of an installed package once; MMEngine reads all of them for every base."""
    with mock.patch.object(mmengine.config.utils, 'load', functools.cache(mmengine.config.utils.load)):
        yield
