"""Predict with an exported file instead of a checkpoint and its model."""

import contextlib
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmstvit.compat import registered_types_only
from mmstvit.dependencies import require_library
from mmstvit.deployment import ExportedFile, ExportedModel
from mmstvit.drawing import class_colors
from mmstvit.errors import UserError
from mmstvit.fileio import check_config

from ..config import complete_config
from .predictor import Predictor

_AGAIN = 'Export the model again.'


@contextlib.contextmanager
def load_exported_predictor(path: str, trust: bool) -> Iterator[Predictor]:
    """Load an exported file; use it inside the context, in which its library is the default scope.

    Args:
        path: The file.
        trust: Build whatever the pipeline in the file names.

    Raises:
        UserError: The file cannot be used.
    """
    model = ExportedModel(ExportedFile(path))
    metadata = model.metadata
    if not (metadata.pipeline and metadata.classes):
        raise UserError(f'{path} does not hold the names of the classes and the test pipeline.', _AGAIN)
    if not trust:
        with _remedy('Pass --trust-checkpoint if you trust the source.'):
            require_library(metadata.library)
            check_config(metadata.pipeline, 'pipeline', metadata.library)
    dataset = dict(pipeline=metadata.pipeline)
    cfg = Config(dict(model=dict(), test_dataloader=dict(dataset=dataset), default_scope=metadata.library))
    cfg = complete_config(cfg, path, None)
    with contextlib.ExitStack() as stack:
        if not trust:
            stack.enter_context(registered_types_only())
        stack.enter_context(DefaultScope.overwrite_default_scope(cfg.default_scope))
        with _remedy(_AGAIN):
            classes = list(metadata.classes)
            predictor = Predictor(cfg, model, classes, class_colors(classes, metadata.palette))
        yield predictor


@contextlib.contextmanager
def _remedy(text: str) -> Iterator[None]:
    """Replace the remedy of an error, which is for checkpoints."""
    try:
        yield
    except UserError as error:
        raise UserError(error.problem, text) from error
