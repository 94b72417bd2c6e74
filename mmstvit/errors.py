"""Errors that tell the user what is wrong and how to fix it."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Something that the user can fix: a command, a config, a file or data.

    Args:
        problem: What is wrong, with the value and what was expected.
        remedy: How to fix it; empty if ``problem`` already says so.
    """

    def __init__(self, problem: str, remedy: str = '') -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f'{self.problem} {self.remedy}'.rstrip()


class CheckpointError(UserError, ValueError):
    """A checkpoint file, or the weights in it, cannot be used."""


class DataError(UserError, RuntimeError):
    """A data set cannot be used as it is."""


class DivergedError(UserError, ArithmeticError):
    """A training run has NaN or Inf in its loss, gradients or weights."""


class FormError(UserError, RuntimeError):
    """A model in deploy form is used like one in training form, or the other way round."""


@contextlib.contextmanager
def prefix_errors(path: object) -> Iterator[None]:
    """Put ``path`` before the message of every :class:`CheckpointError` that is raised inside."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f'{path}: {error.problem}', error.remedy) from error
