"""Record what every process computes; configs import this file."""

import atexit
from pathlib import Path

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Recorder(Hook):
    """Write files for a test into the work dir.

    ``losses_<rank>.txt`` has the loss of every iteration, ``threads_<rank>.txt`` the names of the threads that exist
    when the interpreter ends.
    """

    def before_run(self, runner) -> None:
        atexit.register(record_threads, Path(runner.work_dir, f'threads_{get_rank()}.txt'))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        with Path(runner.work_dir, f'losses_{get_rank()}.txt').open('a') as file:
            file.write(f'{float(outputs["loss"])!r}\n')


def record_threads(path: Path) -> None:
    """Write the names of all threads of the process, those of C++ libraries included."""
    path.write_text(' '.join(file.read_text().strip() for file in Path('/proc/self/task').glob('*/comm')))
