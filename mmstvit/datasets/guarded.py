"""Dataset wrapper that names unreadable files, or skips them in training."""

import logging
from collections.abc import Iterator

import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log
from torch import Tensor
from torch.utils.data import Dataset

from mmstvit.compat import no_sample_found
from mmstvit.errors import DataError, one_line
from mmstvit.registry import DATASETS

from .images import MISSING, Reader, UnreadableError, find_loaders, find_readers, may_read_keys, refuse_damaged_files
from .segmentation_labels import Labels, count_values, find_labels
from .wrappers import DatasetWrapper, inner_datasets

_REPAIR = 'Repair or remove the file; tools/misc/verify_dataset.py CONFIG finds all unreadable files.'
_REMEDIES = {
    'train': f'{_REPAIR} To train without them: --cfg-options data_faults.unreadable=skip',
    'val': f'{_REPAIR} Evaluation does not skip files: its metrics would not be comparable.',
}
_REMEDIES['test'] = _REMEDIES['val']
_LABELS = (
    'Correct the map, metainfo.classes, reduce_zero_label or ignore_index; see tools/misc/verify_dataset.py CONFIG.'
)


class GuardedPipeline(Compose):
    """A pipeline that raises an error with the path of an unreadable file, or skips and counts it.

    A skipped sample is None: MMEngine's datasets then draw another one. A segmentation map with a label that the model
    does not know raises an error, too: the loss would fail without a path, or ignore the label.

    Args:
        pipeline: The original pipeline.
        skips: Number of times that each sample of the dataset was skipped, int32, shared by all processes that load
            data. None: nothing is skipped.
        remedy: Remedy of the error.
        labels: Labels of segmentation maps; None for other datasets.
    """

    def __init__(self, pipeline: Compose, skips: Tensor | None, remedy: str, labels: Labels | None = None) -> None:
        self.transforms = pipeline.transforms
        self.skips = skips
        self.remedy = remedy
        self.labels = labels
        self._readers = find_readers(pipeline)
        self._may_read_keys = may_read_keys(pipeline)
        refuse_damaged_files(pipeline)

    def __call__(self, data: dict) -> dict | None:
        """Run the pipeline on a sample.

        Raises:
            DataError: A file is unreadable, or a segmentation map has unknown labels.
        """
        sample = {key: data.get(key) for key in ('img_path', 'seg_map_path', 'sample_idx')}
        try:
            result = super().__call__(data)
        except Exception as error:  # decoders raise all kinds of errors; reading again shows if a file is the cause
            fault = self.find_fault(sample)
            if fault is None:
                self._check_map(sample, error)
                print_log(one_line(f'Cannot prepare the sample {sample}'), logger='current', level=logging.ERROR)
                raise
            return self._handle(sample, fault, error)
        if result is None:
            fault = self.find_fault(sample)
            if fault is not None:
                return self._handle(sample, fault, None)
        if self.labels is not None and not self.labels.fit(result):
            self._check_map(sample, None)
        return result

    def find_fault(self, sample: dict) -> tuple[str, str] | None:
        """Find the first unreadable file of a sample and the reason; None if all files can be read."""
        for path, reader in self._files(sample):
            try:
                reader.read(path)
            except UnreadableError as error:
                if str(error) != MISSING or not self._may_read_keys:
                    return path, str(error)
        return None

    def _check_map(self, sample: dict, cause: Exception | None) -> None:
        """Raise DataError if the segmentation map of a sample is not one of labels that the model knows."""
        for path, reader in self._files(sample):
            if self.labels is not None and reader.key == 'seg_map_path':
                problem = self.labels.find_fault(count_values(reader.read(path)))
                if problem:
                    raise DataError(f'{path} {problem}.', _LABELS) from cause

    def _files(self, sample: dict) -> Iterator[tuple[str, Reader]]:
        for reader in self._readers:
            path = sample.get(reader.key)
            if isinstance(path, str):
                yield path, reader

    def _handle(self, sample: dict, fault: tuple[str, str], cause: Exception | None) -> None:
        path, reason = fault
        if self.skips is None:
            raise DataError(f'Cannot read {path}: {reason}.', self.remedy) from cause
        index = sample['sample_idx']
        if not self.skips[index]:
            message = f'Cannot read {path}: {reason}. Another sample replaces it, now and in later epochs.'
            print_log(one_line(message), logger='current', level=logging.ERROR)  # ranks other than 0 log errors only
        self.skips[index] += 1


@DATASETS.register_module()
class GuardedDataset(DatasetWrapper):
    """Dataset wrapper that names unreadable files.

    An unreadable or truncated image or segmentation map raises an error, or, in training only, another sample replaces
    it: MMEngine draws that from NumPy's random numbers, which inside a :class:`SeededDataset` depend only on the seed
    and the position in the training run.

    Args:
        dataset: Config of the inner dataset, or the dataset.
        split: ``'train'``, ``'val'`` or ``'test'``.
        unreadable: ``'fail'`` or ``'skip'``; None skips if the pipeline's ``LoadImageFromFile`` has
            ``ignore_empty=True``, and fails otherwise. Only training skips.
        ignore_index: Label of segmentation maps that the model ignores.

    Raises:
        ValueError: An argument has another value.
    """

    def __init__(
        self, dataset: dict | Dataset, split: str = 'train', unreadable: str | None = None, ignore_index: int = 255
    ) -> None:
        if split not in _REMEDIES:
            raise ValueError(f'split must be one of {sorted(_REMEDIES)}, but got {split!r}.')
        if unreadable not in (None, 'fail', 'skip'):
            raise ValueError(f"unreadable must be 'fail', 'skip' or None, but got {unreadable!r}.")
        if unreadable == 'skip' and split != 'train':
            raise ValueError(f"unreadable='skip' is for training only, but split is {split!r}.")
        super().__init__(dataset)
        if hasattr(self.dataset, 'full_init'):
            self.dataset.full_init()
        for _, inner in inner_datasets(self.dataset):
            if not isinstance(inner, BaseDataset):
                continue
            skip = split == 'train' and (unreadable == 'skip' or (unreadable is None and _ignores_empty(inner)))
            # Worker processes count in shared memory.
            skips = torch.zeros(len(inner), dtype=torch.int32).share_memory_() if skip else None
            inner.pipeline = GuardedPipeline(inner.pipeline, skips, _REMEDIES[split], find_labels(inner, ignore_index))

    def __getitem__(self, index: int) -> object:
        """Load a sample, or another one that replaces it.

        Raises:
            DataError: A file is unreadable, or no other sample is found.
        """
        try:
            return super().__getitem__(index)
        except Exception as error:
            # A pipeline may return None for reasons other than unreadable files.
            if no_sample_found(error) and skipped_files(self.dataset):
                raise DataError('Too many files are unreadable to find other samples; see the log.', _REPAIR) from error
            raise

    def __setattr__(self, name: str, value: object) -> None:
        if name == 'pipeline' and isinstance(self.dataset, BaseDataset) and isinstance(value, Compose):
            old = self.dataset.pipeline
            value = GuardedPipeline(value, old.skips, old.remedy, old.labels)
        super().__setattr__(name, value)


def _ignores_empty(dataset: BaseDataset) -> bool:
    loaders = find_loaders(dataset.pipeline)
    return any(isinstance(loader, LoadImageFromFile) and loader.ignore_empty for loader in loaders)


def _skipping_datasets(dataset: Dataset) -> Iterator[BaseDataset]:
    """Find the inner datasets that skip unreadable files."""
    for _, inner in inner_datasets(dataset):
        pipeline = getattr(inner, 'pipeline', None)
        if isinstance(pipeline, GuardedPipeline) and pipeline.skips is not None:
            yield inner


def skips(dataset: Dataset) -> bool:
    """Return True if a dataset skips unreadable files."""
    return any(True for _ in _skipping_datasets(dataset))


def skipped_files(dataset: Dataset) -> dict[str, tuple[str, int]]:
    """Collect the files that this process and its workers have skipped: path → reason, and number of times."""
    files = {}
    for inner in _skipping_datasets(dataset):
        for index in inner.pipeline.skips.nonzero().flatten().tolist():
            info = inner.get_data_info(index)
            fault = inner.pipeline.find_fault(info)
            path, reason = fault or (str(info.get('img_path')), 'the file could not be read at the time')
            files[path] = reason, files.get(path, ('', 0))[1] + int(inner.pipeline.skips[index])
    return files
