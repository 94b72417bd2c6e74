"""The processes of torchrun share the inputs of a prediction; a thread reads the next one."""

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

import torch
from mmengine.dist import all_gather_object, is_main_process
from torch import distributed

from mmstvit.engine.runner.processes import exit_silently, leave_process_group
from mmstvit.errors import UserError

T = TypeVar('T')


@contextlib.contextmanager
def join_processes() -> Iterator[None]:
    """Join the processes of torchrun, each with a GPU of its own if there are any; without torchrun, do nothing."""
    if not (distributed.is_available() and distributed.is_torchelastic_launched()):
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ['LOCAL_RANK']) % torch.cuda.device_count())
    # Results go through files. The processes wait for the slowest share, which may take days.
    distributed.init_process_group('gloo', timeout=timedelta(days=30))
    yield
    leave_process_group()


def in_all_processes(function: Callable[[], T]) -> T:
    """Call a function in every process, and wait for all.

    A UserError in one of them ends all: the main process raises it, the others say nothing.
    """
    result, error = None, None
    try:
        result = function()
    except UserError as caught:
        error = caught
    errors = [found for found in all_gather_object(error) if found is not None]
    if errors:
        main = is_main_process()
        leave_process_group()
        if main:
            raise errors[0]
        exit_silently()
    return result


def read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items, which are not None, while a thread computes the next one."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
