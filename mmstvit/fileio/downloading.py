"""Download checkpoints into torch's cache, each address once."""

import hashlib
import http.client
import os
import urllib.parse
import urllib.request
from pathlib import Path

import torch
from mmengine.dist import barrier, get_rank
from torch.hub import tqdm

from mmstvit.errors import CheckpointError

from .reading import find_format

_CHUNK = 1 << 20  # bytes
_LARGEST = 1 << 34  # bytes of a file; a server need not say how many it sends
_TIMEOUT = 60  # seconds without an answer


def download(address: str) -> str:
    """Download a file, once per machine, and return its path.

    Its name in the cache begins with the hash of the address: files of one name at two addresses are two files.

    Raises:
        CheckpointError: The file cannot be downloaded, is incomplete or no checkpoint; nothing is left of it.
    """
    try:
        name = Path(urllib.parse.urlparse(address).path).name[-100:]
    except ValueError as error:
        raise CheckpointError(f'{address} is not an address: {error}.') from error
    digest = hashlib.sha256(address.encode()).hexdigest()[:16]
    path = Path(torch.hub.get_dir()) / 'checkpoints' / f'{digest}-{name}'
    try:
        if get_rank() == 0:
            _download(address, path)
    finally:
        barrier()
    _download(address, path)  # on other machines
    return str(path)


def _download(address: str, path: Path) -> None:
    if path.exists():
        return
    partial = path.with_name(f'partial-{os.getpid()}-{path.name}')  # the suffix tells the format
    request = urllib.request.Request(address, headers={'User-Agent': 'mmstvit'})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response, open(partial, 'wb') as file:
            size = int(response.headers.get('Content-Length') or 0)
            with tqdm(total=size or None, unit='B', unit_scale=True, disable=not os.isatty(0)) as progress:
                while chunk := response.read(_CHUNK):
                    progress.update(file.write(chunk))
                    if file.tell() > _LARGEST:
                        raise OSError(f'it has more than {_LARGEST:,} bytes')
            if size and file.tell() != size:  # the response ends without an error
                raise OSError(f'the connection was closed after {file.tell()} of {size} bytes')
        find_format(partial, verify=True)  # not damaged, nor a web page, which some servers send instead of an error
        os.replace(partial, path)
    except CheckpointError as error:
        raise CheckpointError(error.problem.replace(str(partial), address), error.remedy) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise CheckpointError(
            f'{address} cannot be downloaded: {error}.', 'Download it by other means and name the file.'
        ) from error
    finally:
        partial.unlink(missing_ok=True)
