"""Runs that can be killed at any moment and resumed with the same result."""

import argparse
import copy
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from numbers import Number, Real
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.optim import Optimizer

from mmstvit.engine.hooks.checkpoint import forget_foreign_files
from mmstvit.errors import CheckpointError, UserError, one_line
from mmstvit.fileio import (
    compare,
    describe_content,
    find_format,
    is_local,
    open_checkpoint,
    read_file,
    resumable_checkpoints,
)
from mmstvit.nodes import as_list, type_name

from .requirements import check_checkpoint

# Samplers of MMEngine, MMDetection and MMPreTrain whose indices are integers: only those can carry a seed.
_SAMPLERS = (
    'ClassAwareSampler, CustomSampleSizeSampler, DefaultSampler, GroupMultiSourceSampler, InfiniteSampler, '
    'MultiDataSampler, MultiSourceSampler, RepeatAugSampler, SequentialSampler'
)
# State-dict keys that record progress or derived values, not user settings.
_PROGRESS = ('params', 'param_names', 'last_step', '_global_step', '_last_value', 'base_values', 'verbose')
_NEW_RUN = 'For a new run from these weights: without --resume, with --cfg-options load_from={}'


def make_restartable(cfg: Config) -> None:
    """Change a config so that its run can be killed at any moment and resumed.

    Checkpoints are written so that a kill cannot damage one. With a seed (``randomness.seed``), random numbers depend
    only on the iteration, and a resumed run repeats them. Without a seed no two runs are equal. With an unknown sampler
    random numbers are not repeated, and the log says so.
    """
    cfg.default_hooks = cfg.get('default_hooks') or ConfigDict()
    checkpoint = cfg.default_hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1)) or {}
    # Our hook writes single files into the local file system; some strategies of MMEngine write folders.
    is_local_run = is_local(cfg.work_dir) and is_local(checkpoint.get('out_dir') or '')
    has_files = type_name(cfg.get('strategy') or {'type': 'DDPStrategy'}) in ('SingleDeviceStrategy', 'DDPStrategy')
    if checkpoint.get('type') == 'CheckpointHook' and is_local_run and has_files and not checkpoint.get('backend_args'):
        checkpoint.type = 'mmstvit.CheckpointHook'
    loader = cfg.train_dataloader
    sampler = type_name(loader.sampler)
    if (cfg.get('randomness') or {}).get('seed') is None or sampler == 'SeededSampler':  # from an earlier run
        return
    if sampler not in _SAMPLERS.split(', '):
        problem = 'random numbers will not be repeated when this run is resumed: that works for the samplers'
        text = f'{problem} {_SAMPLERS}, but train_dataloader has {sampler}'
        print_log(text, logger='current', level=logging.WARNING)
        return
    loader.dataset = ConfigDict(type='mmstvit.SeededDataset', dataset=loader.dataset)
    loader.sampler = ConfigDict(type='mmstvit.SeededSampler', sampler=loader.sampler)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), ConfigDict(type='mmstvit.SeedHook')]


def apply_resume(cfg: Config, args: argparse.Namespace) -> None:
    """``--resume``: set the checkpoint from which the run continues.

    ``resume = True`` in a config, as in one that was saved by a resumed run, does the same if there is a checkpoint.

    Raises:
        UserError: There is no checkpoint to resume from, or it does not exist.
    """
    if args.resume is None and not cfg.get('resume'):
        return
    path = args.resume or cfg.get('load_from') or 'auto'
    if path != 'auto':
        check_checkpoint(path)
    elif args.resume or Path(cfg.work_dir, 'last_checkpoint').exists():
        path = find_checkpoint(cfg.work_dir)
    else:
        path = None
    cfg.resume = path is not None
    if cfg.resume:
        cfg.load_from = path
    start = 'the beginning, because there is no checkpoint yet' if path is None else path
    print_log(f'the run starts from {start}', logger='current')


def find_checkpoint(work_dir: str) -> str | None:
    """Find the checkpoint from which a run continues.

    Args:
        work_dir: The work dir of the run. It may have been moved or copied: the name in ``last_checkpoint`` is looked
            for there first, then at the path in that file, which may be below ``default_hooks.checkpoint.out_dir``.

    Returns:
        The path; None if the run was killed before its first checkpoint.

    Raises:
        UserError: There was no run, or the checkpoint is missing or damaged.
    """
    folder, record = Path(work_dir), Path(work_dir, 'last_checkpoint')
    if not record.exists():
        if any(folder.glob('[0-9]*_[0-9]*/')):  # MMEngine logs every run into a folder named after the time
            return None
        raise UserError(
            f'--resume found nothing to resume in {work_dir}: it does not have the file last_checkpoint.',
            'Start without --resume, or name the work dir (--work-dir) or the checkpoint (--resume PATH).',
        )
    try:
        named = read_file(record).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{record} cannot be read: {error}.', 'Name the checkpoint: --resume PATH') from error
    if not is_local(named):
        return named
    path = next((path for path in (folder / Path(named).name, Path(named)) if path.exists()), Path(named))
    try:
        find_format(path, verify=False)
    except CheckpointError as error:
        whole = next((path for path, _ in resumable_checkpoints({folder, path.parent})), None)
        again = f'Resume from the latest whole one: --resume {shlex.quote(str(whole))}'
        state = 'damaged' if path.exists() else 'missing'
        raise UserError(
            f'{record} names {one_line(str(path))}, which is {state}.',
            again if whole else 'Start a new run, without --resume.',
        ) from error
    return str(path)


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
    checkpoint = open_checkpoint(path, keep=True)
    new_run = _NEW_RUN.format(shlex.quote(str(path)))
    absent = [key for key in ('optimizer', 'meta', 'message_hub') if key not in checkpoint.entries]
    if absent:
        raise CheckpointError(
            f'{path} has weights, but no {" and no ".join(absent)}: a run cannot continue from it.', new_run
        )
    wrong = next(_find_wrong_types(checkpoint.entries), None)
    wrong = wrong or next(
        (f'{name} has no dense data' for name, tensor in checkpoint.weights.items() if tensor.is_meta), None
    )
    if wrong:
        raise CheckpointError(f'a run cannot continue from {path}: {wrong}.', new_run)
    report = compare(model, checkpoint)
    if report.missing or report.unexpected or report.mismatched:
        raise CheckpointError(
            f'{path} belongs to a run with another model:\n{report.table()}\n',
            f'Resume it with the config of that run (in its work dir). {new_run}',
        )
    for unit, limit in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
        done, total = checkpoint.meta.get(unit), cfg.train_cfg.get(limit)
        if None not in (done, total) and done >= total:
            if is_main_process():
                lengths = f'{path} is of {unit} {done}, and the config has train_cfg.{limit}={total}'
                print(f'The run is finished: {lengths}. To train longer, raise train_cfg.{limit}.')
            return False
    return True


def _find_wrong_types(entries: Mapping) -> Iterator[str]:
    """Yield what in a checkpoint is of another type than MMEngine writes, and would fail somewhere in the run."""
    meta, hub, optimizer = (entries[key] for key in ('meta', 'message_hub', 'optimizer'))
    parts = {'meta': meta, 'message_hub': hub, 'optimizer': optimizer}
    if isinstance(hub, Mapping):
        parts |= {f'message_hub.{key}': hub.get(key) for key in ('log_scalars', 'runtime_info', 'resumed_keys')}
    for key, part in parts.items():
        if not (isinstance(part, Mapping) and all(isinstance(name, str) for name in part)):
            yield f'{key} is {describe_content(part)}, expected a dict with names'
            return
    for key, number in {'epoch': meta.get('epoch'), 'iter': meta.get('iter'), 'seed': meta.get('seed') or 0}.items():
        if type(number) is not int or not 0 <= number < 1 << 32:
            yield f'meta.{key} is {number!r:.80}, expected a whole number below 2^32'
    for key, score in hub['runtime_info'].items():
        needs_number = key.startswith('best_score') or isinstance(score, (Number, Tensor))
        if needs_number and not _is_number(score):
            yield f'message_hub.runtime_info.{key} is {score!r:.80}, expected a real number'
    for key, log in hub['log_scalars'].items():
        if isinstance(log, HistoryBuffer) and any(part.dtype.kind not in 'biuf' or part.ndim != 1 for part in log.data):
            yield f'message_hub.log_scalars.{key} has other entries than real numbers'
    for key in ('state', 'param_groups'):
        part = optimizer.get(key, {})
        children = part.values() if isinstance(part, Mapping) else part if isinstance(part, list) else [part]
        if not all(isinstance(child, Mapping) for child in children):
            yield f'optimizer.{key} has no dict for each parameter or group'


class ResumedValuesHook(Hook):
    """Hook of a resumed run that checks what its checkpoint brings with it."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Log settings of the checkpoint that differ from the config; raises UserError for other parameter groups."""
        checkpoint['meta'].pop('config', None)  # MMEngine 0.10.12 executes it, to compare numbers of GPUs
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):  # MMEngine's own, too
                forget_foreign_files(hook, runner, checkpoint['message_hub']['runtime_info'])
        schedulers = runner.param_schedulers if isinstance(runner.param_schedulers, list) else []
        own, own_states = runner.optim_wrapper.state_dict(), [scheduler.state_dict() for scheduler in schedulers]
        states = [state for state in as_list(checkpoint.get('param_schedulers')) if 'last_step' in state]
        ours, theirs = _settings(own, own_states), _settings(checkpoint['optimizer'], states)
        new_run = _NEW_RUN.format(shlex.quote(str(runner._load_from)))
        here, there = (settings.pop(('parameter groups', 0)) for settings in (ours, theirs))
        if here != there:
            raise UserError(
                f'the optimizer in {runner._load_from} has {there} parameter groups, that of the config has {here}.',
                f'Resume with the optim_wrapper of that run. {new_run}',
            )
        groups = [*zip(own.get('param_groups', ()), checkpoint['optimizer'].get('param_groups', ()), strict=False)]
        for mine, other in groups:
            if mine.keys() - other.keys() and other.keys() - mine.keys():
                lacks = ', '.join(sorted(mine.keys() - other.keys()))
                raise UserError(f'the optimizer in {runner._load_from} is of another type: it has no {lacks}.', new_run)
        pairs = [*zip(own_states, states, strict=False)]
        # A scheduler takes over whatever its state names.
        wrong = [(name, state[name]) for mine, state in pairs for name in state.keys() - mine.keys()]
        wrong += [
            (name, value)
            for mine, other in [*groups, *pairs]
            for name, value in other.items()
            if not _is_alike(mine.get(name), value)
        ]
        if not wrong and isinstance(runner.optim_wrapper, OptimWrapper):
            wrong = _find_wrong_state(runner.optim_wrapper.optimizer, checkpoint['optimizer'])
        for name, value in wrong:
            problem = f'{runner._load_from} has {name}={value!r:.80}, which does not fit the run of the config.'
            raise UserError(problem, f'Resume with the optim_wrapper and param_scheduler of that run. {new_run}')
        rows = {}
        for place in ours:
            if place in theirs and ours[place] != theirs[place]:
                text = f'  {place[0]}: {theirs[place]} in the checkpoint, {ours[place]} in the config'
                rows.setdefault(place[0], text)
        if rows:
            title = 'The resumed run continues with values of the checkpoint that differ from the config:'
            print_log('\n'.join([title, *rows.values(), new_run]), logger='current')


def _is_alike(own: object, other: object) -> bool:
    """Return True if a value of a state may take the place of one's own: both are numbers, lists of them, texts, …."""
    if isinstance(own, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(own) == len(other) and all(map(_is_alike, own, other))
    if own is None or other is None:
        return True
    if _is_number(own):
        return _is_number(other)
    if isinstance(own, Tensor):
        return isinstance(other, Tensor) and _is_plain(other) and own.shape == other.shape
    return own == other if isinstance(own, str) else isinstance(other, type(own))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1 and _is_plain(value))


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_complex()


def _find_wrong_state(optimizer: Optimizer, state: Mapping) -> list[tuple[str, object]]:
    """Compare a state with that of a copy of the optimizer, which makes a step with the settings of the state.

    The kernels of fused optimizers check no shapes: with others they write outside of their tensors.
    """
    trial = copy.deepcopy(optimizer)
    for parameter in (parameter for group in trial.param_groups for parameter in group['params']):
        parameter.grad = torch.zeros_like(parameter)
    try:
        trial.load_state_dict({'param_groups': state['param_groups'], 'state': {}})
        trial.step()
    except Exception as error:  # of any optimizer
        return [('optimizer.param_groups', error)]
    made, wrong = trial.state_dict()['state'], []
    for index, values in state.get('state', {}).items():
        own = made.get(index, {})
        for name in {*own, *values}:
            pair = own.get(name), values.get(name)
            if not (name in own and name in values and (pair[0] is None) == (pair[1] is None) and _is_alike(*pair)):
                wrong.append((f'optimizer.state.{index}.{name}', pair[1]))
    return wrong


def _settings(optimizer: Mapping, schedulers: Sequence[Mapping]) -> dict[tuple[str, int], object]:
    """Return the settings in the states of an optimizer and of schedulers, by config key and parameter group."""
    groups = [optimizer.get('base_param_settings') or {}, *optimizer.get('param_groups', [])]
    parts = [('optim_wrapper.optimizer', index, group) for index, group in enumerate(groups)]
    parts += [(f'param_scheduler.{index}', 0, state) for index, state in enumerate(schedulers)]
    settings = {('parameter groups', 0): len(groups) - 1, ('number of param_schedulers', 0): len(schedulers)}
    for key, index, part in parts:
        for name, value in part.items():
            if name not in _PROGRESS and not (name == 'lr' and 'initial_lr' in part):  # lr is that of an iteration
                name = 'lr' if name == 'initial_lr' else name.lstrip('_')
                settings[f'{key}.{name}', index] = list(value) if isinstance(value, tuple) else value
    return settings
