"""An image, and the super tokens and attention that a tiny model has for one of its size."""

import numpy as np
import pytest

from mmstvit.visualization import Attention, SuperTokens, attention_of, super_tokens

from ..helpers import image, tiny

SIZE = HEIGHT, WIDTH = 50, 70  # the last tokens and cells are cut off
POINT = (41, 22)


@pytest.fixture(scope='session')
def records() -> tuple[list[SuperTokens], list[Attention]]:
    model, pixels = tiny(), image(3, *SIZE)
    return super_tokens(model, pixels), attention_of(model, pixels, POINT)


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
