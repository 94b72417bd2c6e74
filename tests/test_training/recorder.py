"""What every process computes, for a test to read: imported by a config."""

import atexit
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Recorder(Hook):
    """In the work dir, ``losses_<rank>.txt`` has this process's loss in every iteration, and ``numbers_<rank>.txt`` how
    many numbers of the model's parameters it holds after one. ``threads_<rank>.txt`` has the names of the threads that
    live when the interpreter goes.
    """

    def before_run(self, runner) -> None:
        atexit.register(record_threads, Path(runner.work_dir, f'threads_{get_rank()}.txt'))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        numbers = sum(parameter.numel() for parameter in runner.model.parameters())
        Path(runner.work_dir, f'numbers_{get_rank()}.txt').write_text(str(numbers))
        with Path(runner.work_dir, f'losses_{get_rank()}.txt').open('a') as file:
            file.write(f'{float(outputs["loss"])!r}\n')


def record_threads(path: Path) -> None:
    """PyTorch's own threads too, which Python does not know of: as Linux lists them."""
    path.write_text(' '.join(file.read_text().strip() for file in Path('/proc/self/task').glob('*/comm')))
