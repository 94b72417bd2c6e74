"""Checkpoint hook for runs that may be killed at any moment."""

import copy
import itertools
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, MutableMapping
from pathlib import Path

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.runner import EpochBasedTrainLoop, Runner, find_latest_checkpoint

from mmstvit.compat import accumulative_counts
from mmstvit.errors import UserError
from mmstvit.fileio import flush, read_file, write_atomically
from mmstvit.nodes import as_list
from mmstvit.registry import HOOKS

UNFINISHED = 'checkpoint.unfinished'
INTERRUPTED = 'interrupted.pth'
_SAMPLES = 'train_samples'  # number of training samples, in the message hub
_RECORD = '.mmstvit-checkpoints.json'


@HOOKS.register_module()
class CheckpointHook(MMEngineCheckpointHook):
    """MMEngine's ``CheckpointHook`` for a run that may be killed at any moment; the arguments are the same.

    MMEngine removes the oldest checkpoint first and then writes the new one under its final name. This hook writes
    ``checkpoint.unfinished``, renames it when it is on the disk, updates ``last_checkpoint``, and then removes the
    oldest one. Whenever the process dies, ``last_checkpoint`` names a complete file, and the best checkpoint
    (``save_best``) exists, be it the old or the new one. A record in the folder lists the files that it wrote: a
    resumed run removes no others. A file that would be replaced gets another name if it is not listed, or if it is
    later than a checkpoint from which a run was resumed.

    It overrides private methods of MMEngine's hook (tried with 0.10.12).

    Attributes:
        saved: Iterations that were done when the last checkpoint was written; None before it.
    """

    saved: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Prepare the folders, and warn if a resumed run cannot be exact.

        Raises:
            UserError: The checkpoints do not go to the local file system.
        """
        later = forget_foreign_files(self, runner, runner.message_hub.runtime_info)
        super().before_train(runner)
        if not isinstance(self.file_backend, LocalBackend):
            raise UserError(
                f'mmstvit.CheckpointHook writes to the local file system, but got out_dir={str(self.out_dir)!r}.',
                "Set default_hooks.checkpoint.type='CheckpointHook'.",
            )
        if later and is_main_process():  # what is not listed is not replaced, whatever is resumed after this run
            record = {name: time for name, time in _read_record(self.out_dir).items() if name not in later}
            write_atomically(json.dumps(record).encode(), Path(self.out_dir, _RECORD))
        if not runner._resume and (earlier := sorted(_read_record(self.out_dir))):
            names = ', '.join(earlier[:3]) + (', …' if len(earlier) > 3 else '')
            runner.logger.warning(
                f'{self.out_dir} has checkpoints of an earlier run ({names}): those of the same names will be '
                f'replaced. To go on with that run: --resume. To keep them: another --work-dir.'
            )
        self._warn_of_inexact_resume(runner)
        self._continue_epoch(runner)

    def _continue_epoch(self, runner: Runner) -> None:
        """Skip the batches of the epoch that are done: MMEngine 0.10.12 repeats the epoch. Warn if the data changed."""
        loader, before = runner.train_dataloader, runner.message_hub.runtime_info.get(_SAMPLES)
        count = len(loader.dataset) if hasattr(loader.dataset, '__len__') else 0  # a stream
        runner.message_hub.update_info(_SAMPLES, count)
        in_epochs = isinstance(runner.train_loop, EpochBasedTrainLoop)  # other loops skip them
        done = runner.iter - runner.epoch * len(loader) if in_epochs else 0
        if before not in (None, count):
            runner.logger.warning(
                f'The resumed run had {before!r} training samples, now there are {count}: epochs and the learning rate '
                f'do not continue where they ended. For a new run, start without --resume.'
            )
        elif 0 < done <= len(loader):
            # DataLoader allows no other batch_sampler, but asks for it at every epoch.
            object.__setattr__(loader, 'batch_sampler', _Rest(loader.batch_sampler, done))

    def save_now(self, runner: Runner, meta: dict[str, int]) -> None:
        """Write a checkpoint of the present state as ``interrupted.pth``, from which ``--resume`` continues.

        Args:
            runner: The runner.
            meta: ``epoch`` and ``iter``: how many are done.
        """
        _Saver(runner).save_checkpoint(self.out_dir, INTERRUPTED, meta=meta, **self.args)
        self._name_last(runner, INTERRUPTED, meta)

    def _name_last(self, runner: Runner, name: str, meta: dict[str, int]) -> None:
        self.last_ckpt, self.saved = str(Path(self.out_dir, name)), meta['iter']
        if is_main_process():
            write_atomically(os.fsencode(self.last_ckpt), Path(runner.work_dir, 'last_checkpoint'))

    def _warn_of_inexact_resume(self, runner: Runner) -> None:
        if self.interval <= 0:  # no checkpoint before the end of the run
            return
        epoch = len(runner.train_dataloader)
        iterations = self.interval * epoch if self.by_epoch else self.interval
        accumulated = accumulative_counts(runner.optim_wrapper)
        if iterations % accumulated:
            runner.logger.warning(
                f'A checkpoint every {iterations} iterations falls between optimizer steps, which come every '
                f'{accumulated} iterations (accumulative_counts): a resumed run loses the gradients accumulated so far.'
            )

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        name = self.filename_tmpl.format(step)
        runner.message_hub.update_info('last_ckpt', str(Path(self.out_dir, name)))
        kept = []
        if self.max_keep_ckpts > 0:
            kept = [*(kept for kept in self.keep_ckpt_ids if kept != step), step]
            # The oldest one still exists and is still listed, so that MMEngine's before_train removes it after a kill.
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
        self._name_last(runner, name, meta)
        if is_main_process():
            for outdated in kept[: -self.max_keep_ckpts]:
                Path(self.out_dir, self.filename_tmpl.format(outdated)).unlink(missing_ok=True)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids = deque(kept, self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        outdated: list[str] = []
        backend, self.file_backend = self.file_backend, copy.copy(self.file_backend)
        self.file_backend.remove = outdated.append  # MMEngine removes the old one before it writes the new one
        try:
            super()._save_best_checkpoint(_Saver(runner), metrics)
        finally:
            self.file_backend = backend
        info = runner.message_hub.runtime_info
        for path in {*outdated} - {info[key] for key in info if key.startswith('best_ckpt')}:
            Path(path).unlink(missing_ok=True)


def forget_foreign_files(hook: MMEngineCheckpointHook, runner: Runner, info: MutableMapping) -> set[str]:
    """Forget the checkpoints that the hook would remove later, unless this run wrote them.

    A resumed run takes their names (``best_ckpt``, ``keep_ckpt_ids``) from its checkpoint, which may come from anybody.
    MMEngine 0.10.12 removes whatever is named there. The run keeps a name only if the record in the folder of the hook
    has both the named file and the checkpoint itself.

    Args:
        hook: The hook, before its ``before_train``.
        runner: Its runner.
        info: ``runtime_info`` of the message hub, which is changed.

    Returns:
        Names of files that this run wrote after the checkpoint from which it is resumed, or all if that is not its own.
    """
    folder = runner.work_dir
    if hook.out_dir not in (None, folder):  # as in MMEngine's before_train
        folder = os.path.join(str(hook.out_dir), os.path.basename(folder.rstrip(os.sep)))
    # FlexibleRunner's resume may be a path. Without one, MMEngine takes the last checkpoint of the work dir.
    named = runner._resume if isinstance(runner._resume, str) else runner._load_from
    resumed = str(named or find_latest_checkpoint(runner.work_dir)) if runner._resume else ''
    where, name = os.path.split(os.path.realpath(os.path.expanduser(resumed)))
    record = _read_record(folder)
    time = record.get(name, 0) if where == os.path.realpath(folder) else 0
    own = {name for name in record if record[name] <= time}

    named = {key: os.path.basename(str(info.pop(key))) for key in [*info] if key.startswith('best_ckpt')}
    info.update({key: os.path.join(folder, name) for key, name in named.items() if name in own})
    ids = as_list(info.pop('keep_ckpt_ids', []))
    info['keep_ckpt_ids'] = [i for i in ids if hook.filename_tmpl.format(i) in own]
    foreign = [i for i in ids if i not in info['keep_ckpt_ids']] + [name for name in named.values() if name not in own]
    if foreign:
        names = ', '.join(map(str, foreign))
        runner.logger.warning(
            f'The run will not remove earlier checkpoints that {resumed} names ({names}): {_RECORD} in {folder} does '
            f'not show that this run wrote them.'
        )
    return {*record} - own if resumed else set()


def _read_record(folder: str | Path) -> dict[str, int]:
    """Return the checkpoints of a folder that a run wrote there and nobody changed: name → time of the change in ns.

    The record is no part of any checkpoint: a checkpoint that comes from elsewhere is not in it.
    """
    try:
        content = json.loads(read_file(Path(folder, _RECORD)))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    times = {path.name: path.lstat().st_mtime_ns for path in Path(folder).iterdir()}
    return {name: time for name, time in content.items() if times.get(name) == time}


class _Rest:
    """Batches of a batch sampler, at first without those that are done."""

    def __init__(self, batches: Iterable, done: int) -> None:
        self.batches, self.done = batches, done

    def __getattr__(self, name: str) -> object:
        return getattr(self.batches, name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator:
        done, self.done = self.done, 0  # not before the first batch is wanted: DataLoader makes iterators that it drops
        yield from itertools.islice(iter(self.batches), done, None)


class _Saver:
    """A runner that writes checkpoints under a temporary name and renames them when they are complete."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> object:
        return getattr(self._runner, name)

    def save_checkpoint(self, out_dir: str, filename: str, **options: object) -> None:
        unfinished = Path(out_dir, UNFINISHED)
        if is_main_process():
            unfinished.unlink(missing_ok=True)  # may be a link
        try:
            self._runner.save_checkpoint(out_dir, UNFINISHED, **options)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            problem = f'{unfinished.with_name(filename)} cannot be written: {error.strerror}.'
            raise UserError(
                problem, 'Make room, then go on with --resume: the checkpoint before it is whole.'
            ) from error
        if is_main_process():
            flush(unfinished)
            record, path = _read_record(out_dir), Path(out_dir, filename)
            if path.exists() and filename not in record:
                names = (f'{filename}.{number}' for number in itertools.count(path.stat().st_mtime_ns))
                earlier = next(name for name in names if not os.path.lexists(Path(out_dir, name)))
                os.replace(path, Path(out_dir, earlier))
                reason = f'{_RECORD} does not list it, or it is later than a checkpoint that was resumed'
                self._runner.logger.warning(f'{path} is kept as {earlier}: {reason}.')
            record[filename] = unfinished.stat().st_mtime_ns
            write_atomically(json.dumps(record).encode(), Path(out_dir, _RECORD))
            os.replace(unfinished, path)
            flush(unfinished.parent)
