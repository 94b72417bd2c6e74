"""Run a tool in the test's own process, which saves the imports of a new one."""

import contextlib
import os
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import mmengine.runner.runner
import torch
from mmengine.utils import ManagerMixin
from yapf.yapflib import yapf_api

from mmstvit.compat import stop_workers

from .helpers import load_tool


def shorten_logs() -> None:
    """Leave out what takes seconds in every run and changes nothing but logs."""
    yapf_api.FormatCode = lambda code, **_: (code, False)  # four times a run, on the config
    mmengine.runner.runner.collect_env = dict  # starts compilers to log their versions


@contextlib.contextmanager
def restored(cwd: Path) -> Iterator[None]:
    """Work in a folder; afterwards undo what a run of MMEngine leaves behind in its process."""
    before, argv, environment = Path.cwd(), sys.argv, dict(os.environ)
    random_state = torch.get_rng_state()
    instances = {manager: OrderedDict(manager._instance_dict) for manager in subclasses(ManagerMixin)}
    os.chdir(cwd)
    try:
        yield
    finally:
        stop_workers()  # which the garbage collector would wait for
        os.chdir(before)
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environment)
        for manager in subclasses(ManagerMixin):  # loggers, scopes and visualizers, which a later run would take over
            manager._instance_dict = instances.get(manager, OrderedDict())
        torch.set_rng_state(random_state)
        torch.use_deterministic_algorithms(False)


def subclasses(kind: type) -> Iterator[type]:
    """Find all subclasses of a class, direct and indirect."""
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


def run_main(tool: str, *args: object, cwd: Path) -> None:
    """Run ``main()`` of ``tools/<tool>`` in a folder, with these arguments; what it raises is raised here."""
    with restored(cwd):
        sys.argv = [tool, *map(str, args)]
        load_tool(tool).main()
