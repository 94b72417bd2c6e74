"""Fixtures of the tests of checkpoints."""

import logging
from collections.abc import Iterator

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Messages of MMEngine's log."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)
