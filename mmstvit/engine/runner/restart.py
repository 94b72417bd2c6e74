"""A training that can be stopped at any moment and go on as if it had not been."""

import logging
import zipfile
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint

from mmstvit.errors import UserError
from mmstvit.fileio import is_local, resumable_checkpoints

from .checks import type_name

# Samplers of MMEngine, MMDetection and MMPreTrain whose indices are integers, which alone can carry a seed.
_SAMPLERS = (
    'ClassAwareSampler',
    'CustomSampleSizeSampler',
    'DefaultSampler',
    'GroupMultiSourceSampler',
    'InfiniteSampler',
    'MultiDataSampler',
    'MultiSourceSampler',
    'RepeatAugSampler',
    'SequentialSampler',
)


def make_restartable(cfg: Config) -> None:
    """Let a training be killed at any moment and resumed.

    Checkpoints are written so that a kill cannot damage one. With a seed (``randomness.seed``), random numbers depend
    on the place in the training alone, so that a resumed run repeats what it has lost; without one, no two runs are
    equal anyway. Not so with a sampler that we do not know, which the log says.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    if checkpoint is not None and checkpoint.type == 'CheckpointHook':
        folders = (cfg.work_dir, checkpoint.get('out_dir') or '')
        if all(map(is_local, folders)) and not checkpoint.get('backend_args'):
            checkpoint.type = 'mmstvit.CheckpointHook'
    if (cfg.get('randomness') or {}).get('seed') is None:
        return
    loader = cfg.train_dataloader
    if loader.dataset.type == 'mmstvit.SeededDataset':  # the config of an earlier run, from its work dir, has it all
        return
    sampler = type_name(loader.sampler)
    if sampler not in _SAMPLERS:
        print_log(
            f'random numbers will not be repeated when this training is resumed: that is for the samplers '
            f'{", ".join(_SAMPLERS)}, but train_dataloader has {sampler}',
            logger='current',
            level=logging.WARNING,
        )
        return
    loader.dataset = ConfigDict(type='mmstvit.SeededDataset', dataset=loader.dataset)
    loader.sampler = ConfigDict(type='mmstvit.SeededSampler', sampler=loader.sampler)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), ConfigDict(type='mmstvit.SeedHook')]


def find_checkpoint(work_dir: str) -> str | None:
    """The checkpoint from which a run goes on.

    Args:
        work_dir: The run's.

    Returns:
        The path in ``last_checkpoint``; None if the run was killed before its first checkpoint.

    Raises:
        UserError: There was no run, or the checkpoint is missing or damaged; the message then names another whole one.
    """
    path = find_latest_checkpoint(work_dir)
    if path is None:
        # MMEngine logs every run into a folder of its own, named after the time.
        if any(Path(work_dir).glob('[0-9]*_[0-9]*/')):
            return None
        raise UserError(
            f'--resume found nothing to resume in {work_dir} (no last_checkpoint file there). Start without --resume, '
            f'or name the work dir (--work-dir) or the checkpoint (--resume PATH).'
        )
    if is_local(path) and not zipfile.is_zipfile(path):
        state = 'damaged' if Path(path).exists() else 'missing'
        latest = next((whole for whole, _ in resumable_checkpoints([Path(path).parent])), None)
        remedy = f'Resume from the last whole one: --resume {latest}' if latest else 'No other is there: start anew.'
        raise UserError(f'{work_dir}/last_checkpoint names {path!r}, which is {state}. {remedy}')
    return path
