"""Report the files that a training run could not read."""

from pathlib import Path

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmstvit.datasets import skipped_files, skips
from mmstvit.errors import one_line
from mmstvit.fileio import write_atomically
from mmstvit.registry import HOOKS

SHOWN = 10


@HOOKS.register_module()
class DataFaultHook(Hook):
    """Report the unreadable files that a training run skipped.

    Covers all processes since this run began; see :class:`mmstvit.datasets.GuardedDataset`. The log names the first
    ten files; ``unreadable_files.txt`` in the folder of the log lists all of them.
    """

    def after_train(self, runner: Runner) -> None:
        """Log and write the report."""
        dataset = runner.train_dataloader.dataset
        if not skips(dataset):
            return
        reasons: dict[str, str] = {}
        counts: dict[str, int] = {}
        for files in all_gather_object(skipped_files(dataset)):
            for path, (reason, count) in files.items():
                reasons[path] = reason
                counts[path] = counts.get(path, 0) + count
        if not is_main_process():
            return
        if not reasons:
            runner.logger.info('Unreadable files: 0.')
            return
        lines = [one_line(f'{path}: {reasons[path]} ({counts[path]}×)') for path in sorted(reasons)]
        out = f'{runner.log_dir}/unreadable_files.txt'
        write_atomically(''.join(f'{line}\n' for line in lines).encode(), Path(out))
        shown = '\n  '.join(lines[:SHOWN] + ([f'… see {out} for all'] if len(lines) > SHOWN else []))
        runner.logger.warning(
            f'Unreadable files: {len(lines)}. They were replaced by other samples {sum(counts.values())} times:\n'
            f'  {shown}'
        )
