"""Exports without the step that takes most of their time."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope='module', autouse=True)
def not_slimmed() -> Iterator[None]:
    """Keep the graphs as PyTorch writes them; ``test_tools`` exports simplified ones."""
    onnxslim = pytest.importorskip('onnxslim')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxslim, 'slim', lambda model: model)
        yield
