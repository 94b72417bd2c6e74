"""Read and decode every file of the data, in parallel processes."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
from torch.hub import tqdm  # counts by itself where tqdm is not installed; of the libraries, MMDetection needs it

from mmstvit.datasets.images import MAP_READER, Reader, UnreadableError
from mmstvit.datasets.segmentation_labels import Values, count_values


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image or segmentation map after decoding.

    Args:
        shape: (height, width); (1, 1) if it cannot be decoded.
        error: The reason why the file cannot be read; empty if it can.
        digest: Digest of the file; None if it cannot be decoded.
        values: Values in a segmentation map, with their numbers of pixels.
    """

    shape: tuple[int, int] = (1, 1)
    error: str = ''
    digest: bytes | None = None
    values: Values | None = None


def decode_files(files: Sequence[Sequence[tuple[str, Reader]]], num_workers: int) -> Iterator[dict[str, Decoded]]:
    """Decode the files of several datasets.

    Args:
        files: Paths and how they are read, for each dataset.
        num_workers: Number of processes; 0 works in this one.

    Yields:
        The decoded files of a dataset by path.
    """
    with tqdm(total=sum(map(len, files)), unit='file', disable=None) as progress, _mapper(num_workers) as run:
        for pairs in files:
            decoded = {}
            for (path, _), result in zip(pairs, run(_decode, pairs), strict=True):
                decoded[path] = result
                progress.update(1)
            yield decoded


@contextmanager
def _mapper(num_workers: int) -> Iterator:
    """Yield a function like ``map``, which works in several processes."""
    if num_workers == 0:
        yield map
        return
    # OpenCV would start a thread per core in each process.
    with ProcessPoolExecutor(num_workers, initializer=cv2.setNumThreads, initargs=(0,)) as pool:
        try:
            yield lambda function, values: pool.map(function, values, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)  # otherwise an interrupt would wait for all files


def _decode(pair: tuple[str, Reader]) -> Decoded:
    path, reader = pair
    try:
        content = reader.read_bytes(path)
        array = reader.decode(content)
    except UnreadableError as error:
        return Decoded(error=str(error))
    values = count_values(array) if reader.key == MAP_READER.key else None
    return Decoded(array.shape[:2], '', hashlib.blake2b(content, digest_size=16).digest(), values)
