"""What can be wrong with a checkpoint."""

import contextlib
from collections.abc import Iterator


class CheckpointError(ValueError):
    """A file, or the weights in it, cannot be used; the message names it, says what was expected and what to do."""


@contextlib.contextmanager
def about(path: object) -> Iterator[None]:
    """Put the path of a file before the message of an error about its content."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error}') from error
