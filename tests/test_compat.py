"""The texts of other libraries that mmstvit.compat depends on."""

import pytest
from mmengine.dataset import BaseDataset
from torch.utils.data import DataLoader, Dataset

from mmstvit.compat import no_sample_found, worker_message
from mmstvit.errors import DataError


class Failing(Dataset):
    """A dataset that raises the given error for every sample."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> None:
        try:
            raise OSError('the cause')
        except OSError as cause:
            raise self.error from cause


@pytest.mark.parametrize(
    'error',
    [DataError('Cannot read a.jpg: it is empty.', 'Remove it.'), DataError('two\nlines: a'), ImportError('no mmcv')],
)
def test_message_of_a_worker(error):
    rebuilt = raise_in_worker(error)
    assert 'Traceback' in str(rebuilt) and worker_message(rebuilt) == str(error)
    assert worker_message(error) == str(error)


def raise_in_worker(error: Exception) -> Exception:
    try:
        next(iter(DataLoader(Failing(error), num_workers=1)))
    except type(error) as rebuilt:
        return rebuilt.with_traceback(None)  # its frames keep the worker alive


class Nothing(BaseDataset):
    """A dataset whose pipeline returns None for every sample."""

    def load_data_list(self) -> list[dict]:
        return [{}]


def test_dataset_that_finds_no_sample():
    dataset = Nothing(pipeline=[lambda data: None], max_refetch=2, serialize_data=False)
    with pytest.raises(Exception, match='Cannot find valid image') as error:
        dataset[0]
    assert no_sample_found(error.value) and not no_sample_found(RuntimeError(str(error.value)))
