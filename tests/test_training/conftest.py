"""Runs of the tools in forked processes."""

from collections.abc import Callable, Iterator
from subprocess import CompletedProcess

import pytest

from ..fork_server import ForkServer
from ..helpers import free_port


@pytest.fixture(scope='session')
def fork() -> Iterator[Callable[..., CompletedProcess[str]]]:
    """``ForkServer.run``; several processes train together."""
    with ForkServer() as server:

        def run(tool: str, *args: object, processes: int = 1, env: dict | None = None, **kwargs: object):
            if processes > 1:
                args = *args, '--launcher', 'pytorch'
                env = {**(env or {}), 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': free_port()['PORT']}
            return server.run(tool, *args, processes=processes, env=env, **kwargs)

        yield run
