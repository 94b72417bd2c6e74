"""The count of what a training could not read."""

from mmengine.dist import all_gather_object, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmstvit.datasets import skipped_files, skips
from mmstvit.registry import HOOKS

SHOWN = 10


@HOOKS.register_module()
class DataFaultHook(Hook):
    """Say at the end of a training how many files were skipped because they could not be read, and which.

    The files are those of all processes since this run began; see :class:`mmstvit.datasets.GuardedDataset`. The log
    names the first ten, ``unreadable_files.txt`` in the folder of the log all of them.
    """

    def after_train(self, runner: Runner) -> None:
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
            runner.logger.info('Files that could not be read: 0.')
            return
        lines = [f'{path}: {reasons[path]} ({counts[path]}×)' for path in sorted(reasons)]
        out = f'{runner.log_dir}/unreadable_files.txt'
        with open(out, 'w') as file:
            file.writelines(f'{line}\n' for line in lines)
        shown = '\n  '.join(lines[:SHOWN] + ([f'… all are in {out}'] if len(lines) > SHOWN else []))
        runner.logger.warning(
            f'Files that could not be read: {len(lines)}. Other samples took their places '
            f'{sum(counts.values())} times:\n  {shown}'
        )
