"""What can be wrong with a checkpoint."""


class CheckpointError(ValueError):
    """A file, or the weights in it, cannot be used; the message names it, says what was expected and what to do."""
