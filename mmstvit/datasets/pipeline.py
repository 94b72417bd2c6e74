"""Pipelines that name the file which they cannot read, and can go on without it."""

import logging
from collections.abc import Iterator

import torch
from mmcv.transforms import LoadAnnotations, LoadImageFromFile
from mmengine.dataset import Compose
from mmengine.logging import print_log
from torch import Tensor

from mmstvit.errors import DataError

from .reading import UnreadableError, cut_short, decode, read_bytes

Loader = LoadImageFromFile | LoadAnnotations


def find_loaders(node: object) -> Iterator[Loader]:
    """The transforms that load an image or its annotations, also those inside other transforms."""
    if isinstance(node, Loader):
        yield node
    elif isinstance(node, (list, tuple)):
        for part in node:
            yield from find_loaders(part)
    else:
        for name in ('transforms', 'subroutines'):  # Compose, RandomChoice and so on; TestTimeAug
            yield from find_loaders(getattr(node, name, ()))


def file_key(loader: Loader) -> str | None:
    """The key under which a sample names the file that a transform reads; None if it reads none."""
    if isinstance(loader, LoadImageFromFile):
        return 'img_path'
    return 'seg_map_path' if loader.with_seg else None


def read_array(path: str, loader: Loader) -> object:
    """The image or map that a transform reads; raises UnreadableError."""
    flag = loader.color_type if isinstance(loader, LoadImageFromFile) else 'unchanged'
    return decode(read_bytes(path, loader.backend_args), flag, loader.imdecode_backend)


class GuardedPipeline(Compose):
    """Another pipeline; a file that cannot be read ends the run with its path, or is skipped and counted.

    Skipped means that the pipeline returns None: MMEngine's datasets then draw another sample.

    Args:
        pipeline: The other pipeline.
        skips: How often each sample of the dataset was skipped: int32, shared by all processes that load data. None:
            nothing is skipped.
        remedy: What to do, for the message.
    """

    def __init__(self, pipeline: Compose, skips: Tensor | None, remedy: str) -> None:
        self.transforms = pipeline.transforms
        self.skips = skips
        self.remedy = remedy
        self._loaders = [loader for loader in find_loaders(pipeline) if file_key(loader)]

    def __call__(self, data: dict) -> dict | None:
        """As the other pipeline.

        Raises:
            DataError: A file cannot be read.
        """
        sample = {key: data.get(key) for key in ('img_path', 'seg_map_path', 'sample_idx')}
        try:
            result = super().__call__(data)
        except Exception as error:  # decoders raise what they like; the files themselves tell whether they are why
            fault = self.find_fault(sample)
            if fault is None:
                print_log(f'Cannot prepare the sample {sample}', logger='current', level=logging.ERROR)
                raise
            return self._refuse(sample, fault, error)
        if result is None or any(map(_is_cut_short, self._files(sample))):
            fault = self.find_fault(sample)
            if fault is not None:
                return self._refuse(sample, fault, None)
        return result

    def find_fault(self, sample: dict) -> tuple[str, str] | None:
        """The first file of a sample that cannot be read, and why; None if all can be."""
        for path, loader in self._files(sample):
            try:
                read_array(path, loader)
            except UnreadableError as error:
                return path, str(error)
        return None

    def _files(self, sample: dict) -> Iterator[tuple[str, Loader]]:
        for loader in self._loaders:
            path = sample.get(file_key(loader))
            if isinstance(path, str):
                yield path, loader

    def _refuse(self, sample: dict, fault: tuple[str, str], cause: Exception | None) -> None:
        path, reason = fault
        if self.skips is None:
            raise DataError(f'cannot read {path}: {reason}. {self.remedy}') from cause
        index = sample['sample_idx']
        if not self.skips[index]:
            message = f'Cannot read {path}: {reason}. Another sample takes its place, here and in what follows.'
            print_log(message, logger='current', level=logging.ERROR)  # not a warning: other ranks log errors alone
        self.skips[index] += 1


def _is_cut_short(file: tuple[str, Loader]) -> bool:
    """Whether a file that was read is not whole; told of local files alone, where a second look costs nothing."""
    path, loader = file
    return '://' not in path and (loader.backend_args or {}).get('backend', 'local') == 'local' and cut_short(path)


def shared_counts(size: int) -> Tensor:
    """Zeros that the worker processes of a dataloader share with the one that started them."""
    return torch.zeros(size, dtype=torch.int32).share_memory_()
