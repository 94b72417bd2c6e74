"""Checkpoints that are there whole or not at all."""

import os
from collections import deque
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmstvit.registry import HOOKS

UNFINISHED = 'checkpoint.unfinished'


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's ``CheckpointHook`` for a training that may be killed at any moment; the arguments are the same.

    MMEngine writes a checkpoint straight under its final name and removes the one before it first. Here it is written
    as ``checkpoint.unfinished``, renamed when it is on the disk, then named in ``last_checkpoint``, and only then is
    an outdated one removed: whenever the process dies, ``last_checkpoint`` names a whole file, and the best checkpoint
    (``save_best``) is there, the old one or the new one.
    """

    def before_train(self, runner: Runner) -> None:
        """As MMEngine's.

        Raises:
            ValueError: The checkpoints do not go to the local file system.
        """
        super().before_train(runner)
        if not isinstance(self.file_backend, LocalBackend):
            raise ValueError(
                f'mmstvit.CheckpointHook writes to the local file system, but got out_dir={str(self.out_dir)!r}. '
                f"Use type='CheckpointHook' there."
            )
        self._warn_of_inexact_resume(runner)

    def _warn_of_inexact_resume(self, runner: Runner) -> None:
        epoch = len(runner.train_dataloader)
        iterations = self.interval * epoch if self.by_epoch else self.interval
        accumulated = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if iterations % accumulated:
            runner.logger.warning(
                f'A checkpoint every {iterations} iterations falls between steps of {accumulated} accumulated '
                f'iterations: a resumed run loses the gradients gathered before it.'
            )
        if isinstance(runner.train_loop, EpochBasedTrainLoop) and iterations % epoch:
            runner.logger.warning(
                f'A checkpoint every {iterations} iterations falls inside epochs of {epoch}: a resumed run begins the '
                f'epoch again.'
            )

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        self.last_ckpt = str(Path(self.out_dir, name))
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        kept = []
        if self.max_keep_ckpts > 0:
            kept = [*(kept for kept in self.keep_ckpt_ids if kept != step), step]
            # The outdated one is still there and still listed: after a kill, MMEngine's before_train removes it.
            runner.message_hub.update_info('keep_ckpt_ids', kept)
        saver = runner if isinstance(runner, _Saver) else _Saver(runner)
        saver.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            **self.args,
        )
        if is_main_process():
            unfinished = Path(runner.work_dir, 'last_checkpoint.unfinished')
            unfinished.write_text(self.last_ckpt)
            _finish(unfinished, Path(runner.work_dir, 'last_checkpoint'))
            for outdated in kept[: -self.max_keep_ckpts]:
                Path(self.out_dir, self.filename_tmpl.format(outdated)).unlink(missing_ok=True)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if self.save_best is None:
            return
        # MMEngine would remove the old ones before it writes: it does not see them.
        old, self._best = self._best, {}
        super()._save_best_checkpoint(_Saver(runner), metrics)
        self._best = {**old, **self._best}
        if is_main_process():
            for path in set(old.values()) - set(self._best.values()):
                Path(path).unlink(missing_ok=True)

    @property
    def _best(self) -> dict[str, str]:
        """Paths of the best checkpoints by metric, of those that there are."""
        paths = self.best_ckpt_path_dict if len(self.key_indicators) > 1 else {'': self.best_ckpt_path}
        return {metric: path for metric, path in paths.items() if path is not None}

    @_best.setter
    def _best(self, paths: dict[str, str]) -> None:
        if len(self.key_indicators) > 1:
            self.best_ckpt_path_dict = {metric: paths.get(metric) for metric in self.key_indicators}
        else:
            self.best_ckpt_path = paths.get('')


class _Saver:
    """A runner that writes its checkpoints elsewhere and renames them when they are whole."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, **options: object) -> None:
        self._runner.save_checkpoint(out_dir, UNFINISHED, **options)
        if is_main_process():
            _finish(Path(out_dir, UNFINISHED), Path(out_dir, filename))


def _finish(unfinished: Path, path: Path) -> None:
    """Bring a file to the disk, then rename it."""
    with unfinished.open('rb') as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)
