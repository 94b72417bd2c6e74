"""Runs that can be killed at any moment and resumed with the same result."""

import argparse
import copy
import logging
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from numbers import Number, Real
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from mmstvit.engine.hooks.checkpoint import forget_foreign_files
from mmstvit.errors import CheckpointError, UserError
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
            f'{record} names {path}, which is {state}.',
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
    if wrong := next(_find_wrong_types(checkpoint.entries), None):
        raise CheckpointError(f'a run cannot continue from {path}: {wrong}.', new_run)
    report = compare(model, checkpoint)
    if report.missing or report.unexpected or report.mismatched:
        raise CheckpointError(
            f'{path} belongs to a run with another model:\n{textwrap.indent(report.table(), "  ")}',
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
    for key, resumed in hub['resumed_keys'].items():
        if type(resumed) is not bool:
            yield f'message_hub.resumed_keys.{key} is {resumed!r:.80}, expected True or False'
    for key, log in hub['log_scalars'].items():
        if isinstance(log, HistoryBuffer) and any(part.dtype.kind not in 'biuf' or part.ndim != 1 for part in log.data):
            yield f'message_hub.log_scalars.{key} has other entries than real numbers'


class ResumedValuesHook(Hook):
    """Hook of a resumed run that checks what its checkpoint brings with it."""

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Log settings of the checkpoint that differ from the config; raises UserError for states of another run."""
        checkpoint['meta'].pop('config', None)  # MMEngine 0.10.12 executes it, to compare numbers of GPUs
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook):  # MMEngine's own, too
                forget_foreign_files(hook, runner, checkpoint['message_hub']['runtime_info'])
        new_run = _NEW_RUN.format(shlex.quote(str(runner._load_from)))
        rows: dict[str, str] = {}
        try:
            for key, mine, other in _pair_states(runner, checkpoint):
                for name in [name for name in mine if name in other and name not in _PROGRESS]:
                    a, b = (list(x) if isinstance(x, tuple) else x for x in (mine[name], other[name]))
                    # The lr beside an initial_lr is that of an iteration.
                    if a != b and not (name == 'lr' and 'initial_lr' in other):
                        name = 'lr' if name == 'initial_lr' else name.lstrip('_')
                        rows.setdefault(f'{key}.{name}', f'{b} in the checkpoint, {a} in the config')
        except _OtherRun as error:
            raise UserError(
                f'{runner._load_from} has {error}, which does not fit the run of the config.',
                f'Resume with the optim_wrapper and param_scheduler of that run. {new_run}',
            ) from error
        if rows:
            title = 'The resumed run continues with values of the checkpoint that differ from the config:'
            lines = [f'  {key}: {text}' for key, text in rows.items()]
            print_log('\n'.join([title, *lines, new_run]), logger='current')


class _OtherRun(Exception):
    """A state in a checkpoint is not one of this run."""


def _pair_states(runner: Runner, checkpoint: Mapping) -> Iterator[tuple[str, Mapping, Mapping]]:
    """Compare the states of optimizers and schedulers with those of a run.

    Yields:
        Settings of a parameter group or scheduler: key in the config, those of the run, those of the checkpoint.

    Raises:
        _OtherRun: The run cannot have made a state, which names it.
    """
    wrapper, state = runner.optim_wrapper, checkpoint['optimizer']
    wrappers = dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'optimizer': wrapper}
    states = state if isinstance(wrapper, OptimWrapperDict) else {'optimizer': state}
    if states.keys() != wrappers.keys():
        raise _OtherRun(f'optimizers of other names ({", ".join(map(str, states))})')
    for name, wrapper in wrappers.items():
        yield from _pair_groups(f'optim_wrapper.{name}', wrapper, states[name])
    own, saved = runner.param_schedulers or [], checkpoint.get('param_schedulers') or []
    for name in own if isinstance(own, dict) else ['']:
        mine, others = (own[name], saved[name]) if name else (own, as_list(saved))
        key = f'param_scheduler.{name}'.rstrip('.')
        yield key, {'number': len(mine)}, {'number': len(others)}
        for index, (scheduler, other) in enumerate(zip(mine, others, strict=False)):
            scheduler = scheduler.state_dict()
            _check(scheduler, other, f'{key}.{index}', less=True)  # it takes over whatever its state names
            yield f'{key}.{index}', scheduler, other


def _pair_groups(key: str, wrapper: OptimWrapper, state: Mapping) -> Iterator[tuple[str, Mapping, Mapping]]:
    """As :func:`_pair_states`, for one optimizer.

    A copy of the optimizer makes a step with the settings of the state, which shows what states it makes. The kernels
    of fused optimizers check no shapes: with others they write outside of their tensors.
    """
    optimizer, kind = wrapper.optimizer, type(wrapper.optimizer).__name__
    if not isinstance(state, Mapping):
        raise _OtherRun(f'{describe_content(state)} as {key}')
    inner = getattr(optimizer, 'optim', None)  # of ZeRO: the optimizer of this process, with some of the parameters
    trial = copy.deepcopy(optimizer if inner is None else inner)
    if inner is not None:
        trial.param_groups = []
        for group in copy.deepcopy(optimizer.param_groups):
            trial.add_param_group(group)
    for parameter in (parameter for group in trial.param_groups for parameter in group['params']):
        parameter.grad = torch.zeros_like(parameter)
    try:
        trial.load_state_dict({'param_groups': state['param_groups'], 'state': {}})
        trial.step()
    except Exception as error:  # of any optimizer
        raise _OtherRun(f'{key}.param_groups that {kind} cannot use ({type(error).__name__}: {error})') from error
    made, saved = trial.state_dict()['state'], state.get('state', {})
    own = {index: made.get(index, {}) for index in saved} if isinstance(saved, Mapping) else made
    _check(own, saved, f'{key}.state')
    scaler = getattr(wrapper, 'loss_scaler', None)
    if scaler is not None and scaler.is_enabled() and 'loss_scaler' in state:
        _check(scaler.state_dict(), state['loss_scaler'], f'{key}.loss_scaler')
    groups = [(wrapper.base_param_settings or {}, state.get('base_param_settings') or {})]
    for mine, other in [*groups, *zip(optimizer.param_groups, state['param_groups'], strict=True)]:
        names = [name for name in mine if name in other and name != 'params']  # versions of PyTorch differ in some
        mine, other = ({name: group[name] for name in names} for group in (mine, other))
        _check(mine, other, f'{key}.param_groups', less=True)
        yield key, mine, other


def _check(own: object, other: object, key: str, less: bool = False) -> None:
    """Check that a state may take the place of one's own: the same entries, of the same kinds and shapes.

    Args:
        own: State of the run.
        other: State in the checkpoint.
        key: Its name there.
        less: Allow entries that are missing or None.

    Raises:
        _OtherRun: It may not.
    """
    if isinstance(own, Mapping) and isinstance(other, Mapping):
        for name in {**own, **other}:
            if name in own and name in other:
                _check(own[name], other[name], f'{key}.{name}', less)
            elif name in other or not less:
                raise _OtherRun(f'{key}.{name}={other.get(name)!r:.80}')
    elif isinstance(own, (list, tuple)) and isinstance(other, (list, tuple)) and len(own) == len(other):
        for index, pair in enumerate(zip(own, other, strict=True)):
            _check(*pair, f'{key}.{index}', less)
    elif not _is_alike(own, other, less):
        raise _OtherRun(f'{key}={other!r:.80}')


def _is_alike(own: object, other: object, less: bool) -> bool:
    if own is None or other is None:
        return less or own is other
    if _is_number(own):
        return _is_number(other)
    if isinstance(own, Tensor):
        return isinstance(other, Tensor) and _is_plain(other) and own.shape == other.shape
    return own == other if isinstance(own, str) else not isinstance(own, (list, tuple)) and isinstance(other, type(own))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1 and _is_plain(value))


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_complex()
