"""Training runs that can be killed at any moment and resumed with the same result."""

import argparse
import logging

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from mmstvit.fileio import is_local
from mmstvit.nodes import type_name

# Samplers of MMEngine, MMDetection and MMPreTrain whose indices are integers: only those can carry a seed.
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


def make_restartable(cfg: Config, _args: argparse.Namespace | None = None) -> None:
    """Make a training run safe to kill at any moment and to resume.

    Checkpoints are written so that a kill cannot damage one. With a seed (``randomness.seed``), random numbers depend
    only on the iteration, so that a resumed run repeats what was lost; without one, no two runs are equal anyway. With
    an unknown sampler random numbers are not repeated, which the log says.
    """
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault('checkpoint', ConfigDict(type='CheckpointHook', interval=1))
    # Other strategies of MMEngine write folders, which only its own hook can.
    one_file = type_name(cfg.get('strategy') or dict(type='DDPStrategy')) in ('SingleDeviceStrategy', 'DDPStrategy')
    if one_file and checkpoint is not None and checkpoint.type == 'CheckpointHook':
        folders = (cfg.work_dir, checkpoint.get('out_dir') or '')
        if all(map(is_local, folders)) and not checkpoint.get('backend_args'):
            checkpoint.type = 'mmstvit.CheckpointHook'
    if (cfg.get('randomness') or {}).get('seed') is None:
        return
    loader = cfg.train_dataloader
    if loader.dataset.type == 'mmstvit.SeededDataset':  # the saved config of an earlier run
        return
    sampler = type_name(loader.sampler)
    if sampler not in _SAMPLERS:
        print_log(
            f'random numbers will not be repeated when this run is resumed: that works for the samplers '
            f'{", ".join(_SAMPLERS)}, but train_dataloader has {sampler}',
            logger='current',
            level=logging.WARNING,
        )
        return
    loader.dataset = ConfigDict(type='mmstvit.SeededDataset', dataset=loader.dataset)
    loader.sampler = ConfigDict(type='mmstvit.SeededSampler', sampler=loader.sampler)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), ConfigDict(type='mmstvit.SeedHook')]
