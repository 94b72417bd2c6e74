"""Datasets that do not fail, and do not go on, without a word."""

from collections.abc import Iterator

from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import BaseDataset, Compose
from torch.utils.data import Dataset

from mmstvit.errors import DataError
from mmstvit.registry import DATASETS

from .pipeline import GuardedPipeline, find_loaders, shared_counts
from .usable import build_dataset, check_usable
from .wrapper import TransparentDataset, leaves

_MEND = 'Mend the file or take it out of the data; tools/misc/verify_dataset.py CONFIG finds all such files'
_NONE_LEFT = 'so many files cannot be read that none was found to take the place of others; the log names them.'
_REMEDIES = {
    'train': f'{_MEND}. Or train without: --cfg-options data_faults.unreadable=skip',
    'val': f'{_MEND}. It is not skipped: the metrics would be those of other data.',
}
_REMEDIES['test'] = _REMEDIES['val']


@DATASETS.register_module()
class GuardedDataset(TransparentDataset):
    """Another dataset, whose faults are told.

    A dataset without samples is refused; in training and validation one without annotations, too. An image or
    segmentation map that cannot be read, or is not whole, is named. It then ends the run, or, in training alone,
    another sample takes its place: MMEngine draws that from NumPy's random numbers, which depend on the seed and the
    place in the training where :class:`SeededDataset` is around this one.

    Args:
        dataset: Config of the other dataset.
        split: ``'train'``, ``'val'`` or ``'test'``: what it is for.
        unreadable: ``'fail'`` or ``'skip'``; None skips where the pipeline's ``LoadImageFromFile`` has
            ``ignore_empty=True``, and fails elsewhere. Nothing but training skips.

    Raises:
        DataError: The dataset cannot be built, is empty, or has no usable annotation.
        ValueError: An argument is none of these.
    """

    def __init__(self, dataset: dict, split: str = 'train', unreadable: str | None = None) -> None:
        if split not in _REMEDIES:
            raise ValueError(f'split must be one of {sorted(_REMEDIES)}, but got {split!r}.')
        if unreadable not in (None, 'fail', 'skip'):
            raise ValueError(f"unreadable must be 'fail', 'skip' or None, but got {unreadable!r}.")
        if unreadable == 'skip' and split != 'train':
            raise ValueError(f"unreadable='skip' is for training: the metrics of {split} would be those of other data.")
        key = f'{split}_dataloader.dataset'
        super().__init__(build_dataset(dataset, key))
        for leaf in leaves(self.dataset):
            if split != 'test':  # a test set may be without annotations
                check_usable(leaf, key)
            skip = split == 'train' and (unreadable == 'skip' or (unreadable is None and _ignores_empty(leaf)))
            leaf.pipeline = GuardedPipeline(leaf.pipeline, shared_counts(len(leaf)) if skip else None, _REMEDIES[split])

    def __getitem__(self, index: int) -> object:
        """A sample, or another in its place.

        Raises:
            DataError: It cannot be read, or may be skipped and no other is found.
        """
        try:
            return super().__getitem__(index)
        except Exception as error:
            # MMEngine has no class of its own for this; a pipeline that returns None for other reasons is not meant.
            gave_up = type(error) is Exception and str(error).startswith('Cannot find valid image')
            if gave_up and any(p.skips is not None and p.skips.any() for _, p in guarded_pipelines(self.dataset)):
                raise DataError(f'{_NONE_LEFT} {_MEND}.') from error
            raise

    def __setattr__(self, name: str, value: object) -> None:
        if name == 'pipeline' and isinstance(self.dataset, BaseDataset) and isinstance(value, Compose):
            old = self.dataset.pipeline
            value = GuardedPipeline(value, old.skips, old.remedy)
        super().__setattr__(name, value)


def _ignores_empty(leaf: BaseDataset) -> bool:
    return any(isinstance(loader, LoadImageFromFile) and loader.ignore_empty for loader in find_loaders(leaf.pipeline))


def guarded_pipelines(dataset: Dataset) -> Iterator[tuple[BaseDataset, GuardedPipeline]]:
    """Every guarded dataset inside wrappers, with its pipeline."""
    for leaf in leaves(dataset):
        if isinstance(leaf.pipeline, GuardedPipeline):
            yield leaf, leaf.pipeline


def skips(dataset: Dataset) -> bool:
    """Whether a dataset skips what it cannot read."""
    return any(pipeline.skips is not None for _, pipeline in guarded_pipelines(dataset))


def skipped_files(dataset: Dataset) -> dict[str, tuple[str, int]]:
    """What this process and its workers have skipped: path → why, and how often."""
    files = {}
    for leaf, pipeline in guarded_pipelines(dataset):
        if pipeline.skips is None:
            continue
        for index in pipeline.skips.nonzero().flatten().tolist():
            info = leaf.get_data_info(index)
            path, reason = pipeline.find_fault(info) or (str(info.get('img_path')), 'it could not be read at the time')
            files[path] = reason, files.get(path, ('', 0))[1] + int(pipeline.skips[index])
    return files
