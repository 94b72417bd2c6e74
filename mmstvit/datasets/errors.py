"""What is wrong with data."""


class DataError(RuntimeError):
    """The data cannot be used as they are; the message names the file or the setting, why, and what to do.

    A dataloader hands on what its workers raise with the worker's traceback for a text. The message, which is the last
    line of it, is what is kept.

    Args:
        message: One line.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rpartition('DataError: ')[2].strip())
