"""Interrupts: Ctrl+C (SIGINT), and SIGTERM as schedulers send it before they kill."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A command ends because of a signal, after it has saved its work.

    Args:
        number: The signal.
        saved: What is there and how to go on.
    """

    def __init__(self, number: int, saved: str = '') -> None:
        super().__init__(saved)
        self.number, self.saved = number, saved


class Interrupts:
    """Context in which a signal is noted in ``number``, so that the work can end in order; a second one interrupts.

    Args:
        handle: Called with the signal instead of noting it.
    """

    def __init__(self, handle: Callable[[int], None] | None = None) -> None:
        self.number, self._handle = 0, handle
        self._process, self._before = os.getpid(), {}

    def __enter__(self) -> 'Interrupts':
        if threading.current_thread() is threading.main_thread():  # only there signals can be handled
            self._before = {number: signal.signal(number, self._receive) for number in _NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker that was forked: Ctrl+C reaches its parent, too, which ends it
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)
            return
        if self._handle is not None:
            self._handle(number)
        elif self.number:
            raise Interrupted(number)
        self.number = number


def interrupt(number: int) -> None:
    """Raise :class:`Interrupted`."""
    raise Interrupted(number)
