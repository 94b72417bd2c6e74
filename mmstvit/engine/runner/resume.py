"""Resuming a run: which checkpoint it continues from, whether it is finished, and which values it takes from there."""

import argparse
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import print_log
from mmengine.runner import Runner
from torch import nn

from mmstvit.engine.hooks.checkpoint import forget_foreign_files
from mmstvit.errors import CheckpointError, UserError
from mmstvit.fileio import Source, compare, find_weights, is_local, read_content, resumable_checkpoints
from mmstvit.nodes import as_list

from .checks import check_checkpoint

# How far an optimizer or schedule has come, and what follows from other values; not settings.
_PROGRESS = ('params', 'param_names', 'last_step', '_global_step', '_last_value', 'base_values', 'verbose')


def apply_resume(cfg: Config, args: argparse.Namespace) -> None:
    """``--resume``: set the checkpoint from which the run continues.

    ``resume = True`` in a config, as in one that was saved by a resumed run, does the same if there is a checkpoint.

    Raises:
        UserError: There is no checkpoint to resume from, or it does not exist.
    """
    if args.resume is None:
        if not cfg.get('resume'):
            return
        if cfg.get('load_from'):
            check_checkpoint(cfg.load_from)
            return
        path = find_checkpoint(cfg.work_dir) if (Path(cfg.work_dir) / 'last_checkpoint').exists() else None
    elif args.resume == 'auto':
        path = find_checkpoint(cfg.work_dir)
    else:
        path = args.resume
        check_checkpoint(path)
    if path is None:
        print_log(f'{cfg.work_dir} has no checkpoint yet: the run starts from the beginning', logger='current')
    else:
        print_log(f'resuming from {path}', logger='current')
        cfg.load_from = path
    cfg.resume = path is not None


def find_checkpoint(work_dir: str) -> str | None:
    """Find the checkpoint from which a run continues.

    The work dir may have been moved or copied since: the name in ``last_checkpoint`` is looked for in the work dir
    first, then at the path that stands there, which may be another folder (``default_hooks.checkpoint.out_dir``).

    Args:
        work_dir: The work dir of the run.

    Returns:
        The path; None if the run was killed before its first checkpoint.

    Raises:
        UserError: There was no run, or the checkpoint is missing or damaged; the remedy names another whole one.
    """
    folder = Path(work_dir)
    record = folder / 'last_checkpoint'
    if not record.exists():
        # MMEngine logs every run into a folder of its own, named after the time.
        if any(folder.glob('[0-9]*_[0-9]*/')):
            return None
        raise UserError(
            f'--resume found nothing to resume in {work_dir}: it does not have the file last_checkpoint.',
            'Start without --resume, or name the work dir (--work-dir) or the checkpoint (--resume PATH).',
        )
    named = record.read_text().strip()
    if not is_local(named):
        return named
    path = next((p for p in (folder / Path(named).name, Path(named)) if p.exists()), Path(named))
    if zipfile.is_zipfile(path):
        return str(path)
    whole = next((whole for whole, _ in resumable_checkpoints({folder, path.parent})), None)
    raise UserError(
        f'{record} names {path}, which is {"damaged" if path.exists() else "missing"}.',
        f'Resume from the latest whole checkpoint: --resume {whole}'
        if whole
        else 'Start a new run: no other is there.',
    )


def check_resume(cfg: Config, model: nn.Module) -> bool:
    """Check that a run of the model can continue from the checkpoint of the config.

    Args:
        cfg: The config, after :func:`apply_resume`.
        model: Its model.

    Returns:
        True if there is something left to train, False if the run in the checkpoint is finished.

    Raises:
        CheckpointError: The checkpoint holds no state of a training run, or that of another model.
    """
    path = cfg.load_from
    content = read_content(path, keep=True)
    absent = [key for key in ('optimizer', 'meta', 'message_hub') if key not in content]
    if absent:
        raise CheckpointError(
            f'{path} has weights, but no {" and no ".join(absent)}: a run cannot continue from it.',
            f'Start a new run from its weights: without --resume, with --cfg-options load_from={path}',
        )
    report = compare(model, Source(path, find_weights(content)[0]))
    if report.missing or report.unexpected or report.mismatched:
        raise CheckpointError(
            f'{path} belongs to a run with another model:\n{report.table()}\n',
            f'Resume it with the config of that run (in its work dir), or start a new run from its weights: without '
            f'--resume, with --cfg-options load_from={path}',
        )
    for unit, limit in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
        done, total = content['meta'].get(unit), cfg.train_cfg.get(limit)
        if None not in (done, total) and done >= total:
            if is_main_process():
                print(
                    f'The run is finished: {path} is of {unit} {done}, and the config has train_cfg.{limit}={total}. '
                    f'To train longer, raise train_cfg.{limit}.'
                )
            return False
    return True


class ResumedValuesHook(Hook):
    """Log which values a resumed run takes from its checkpoint although the config has others."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the optimizer and the schedulers that the config built with those in the checkpoint.

        Raises:
            UserError: The optimizer has other parameter groups than that in the checkpoint.
        """
        checkpoint['meta'].pop('config', None)  # MMEngine would execute it as a config, to compare the number of GPUs
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):  # MMEngine's own, too
                forget_foreign_files(hook, runner, checkpoint['message_hub']['runtime_info'])
        path = runner._load_from
        differences = list(find_differences(runner, checkpoint, path))
        if differences:
            rows = [f'  {key}: {there} in the checkpoint, {here} in the config' for key, there, here in differences]
            print_log(
                '\n'.join(
                    [
                        'The resumed run continues with values of the checkpoint that differ from the config:',
                        *rows,
                        f'To train with the values of the config, start a new run from the weights: without --resume, '
                        f'with --cfg-options load_from={path}',
                    ]
                ),
                logger='current',
            )


def find_differences(runner: Runner, checkpoint: Mapping, path: str) -> Iterator[tuple[str, object, object]]:
    """Yield the config key, value in the checkpoint and value in the config of each setting that differs."""
    wrapper, saved = runner.optim_wrapper, checkpoint['optimizer']
    if hasattr(wrapper, 'optimizer') and 'param_groups' in saved:
        ours, theirs = wrapper.optimizer.param_groups, saved['param_groups']
        if len(ours) != len(theirs):
            raise UserError(
                f'{path} has an optimizer with {len(theirs)} parameter groups, but that of the config has {len(ours)}.',
                f'Resume with the optim_wrapper of that run, or start a new run from the weights: without --resume, '
                f'with --cfg-options load_from={path}',
            )
        base = [(wrapper.base_param_settings or {}, saved.get('base_param_settings') or {})]
        yield from _compare('optim_wrapper.optimizer', [*base, *zip(ours, theirs, strict=True)])
    if isinstance(runner.param_schedulers, Sequence):
        ours, theirs = runner.param_schedulers, as_list(checkpoint.get('param_schedulers'))
        if len(ours) != len(theirs):
            yield 'number of param_schedulers', len(theirs), len(ours)
        for index, (scheduler, state) in enumerate(zip(ours, theirs, strict=False)):
            yield from _compare(f'param_scheduler.{index}', [(scheduler.state_dict(), state)])


def _compare(key: str, pairs: Sequence[tuple[Mapping, Mapping]]) -> Iterator[tuple[str, object, object]]:
    """Yield each setting once, from the first pair of (config, checkpoint) in which it differs."""
    seen = set()
    for ours, theirs in pairs:
        for name in ours.keys() & theirs.keys() - {*_PROGRESS}:
            if name in seen or (name == 'lr' and 'initial_lr' in theirs):  # lr is that of the last iteration
                continue
            here, there = ours[name], theirs[name]
            if isinstance(here, (list, tuple)):
                here, there = list(here), list(there) if isinstance(there, (list, tuple)) else there
            if here != there:
                seen.add(name)
                yield f'{key}.{"lr" if name == "initial_lr" else name.lstrip("_")}', there, here
