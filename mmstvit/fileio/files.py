"""Open files that may come from anybody."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file for reading, in binary mode.

    Pipes, sockets and devices are refused: a pipe makes the reader wait, and a device such as ``/dev/zero`` has no end.

    Raises:
        OSError: It is something else, does not exist or cannot be read.
    """
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder, open() says so
        raise OSError(errno.EINVAL, 'it is a pipe, a socket or a device, not a file', str(path))
    return open(path, 'rb')


def open_new(path: Path) -> BinaryIO:
    """Open a new file for writing, in binary mode; what has its name, such as a link, is removed and not followed."""
    path.unlink(missing_ok=True)
    return open(path, 'xb')


def partial_path(target: Path) -> Path:
    """Return the name of a file until it is complete; nobody else gives a file such a name."""
    return target.with_name(f'.mmstvit-{target.name}.partial')


def read_file(path: str | Path) -> bytes:
    """Read a file; raises OSError as :func:`open_file`."""
    with open_file(path) as file:
        return file.read()
