"""Requirements of a run that its config alone shows: parts, loops and pretrained weights."""

import inspect
import os
from collections.abc import Iterator
from pathlib import Path

import mmengine.runner
from mmengine.config import Config, ConfigDict

from mmstvit.errors import UserError, suggest
from mmstvit.fileio import find_format, is_local
from mmstvit.nodes import as_list, type_name

# Section that says where pretrained weights are.
DOWNLOAD = 'Where to download weights: docs/checkpoints.md, "Download the weights".'
# Train loop -> the length of the other loop, which it does not accept.
_FOREIGN_LENGTHS = {'EpochBasedTrainLoop': 'max_iters', 'IterBasedTrainLoop': 'max_epochs'}


def check_train_parts(cfg: Config) -> None:
    """Check that a config has what training needs; raises UserError."""
    _check_parts(cfg, 'train_dataloader', 'train_cfg', 'optim_wrapper')
    parts = ('val_dataloader', 'val_cfg', 'val_evaluator')
    missing = [key for key in parts if cfg.get(key) is None]
    if missing and len(missing) < len(parts):
        raise UserError(
            f'the config has no {" and no ".join(missing)}, which validation needs.',
            f'Add it, or train without validation: {", ".join(f"{key}=None" for key in parts)}',
        )


def check_test_parts(cfg: Config) -> None:
    """Check that a config has what testing needs; raises UserError."""
    _check_parts(cfg, 'test_dataloader', 'test_cfg', 'test_evaluator')


def _check_parts(cfg: Config, *keys: str) -> None:
    for key in keys:
        if cfg.get(key) is None:
            raise UserError(f'the config has no {key}, which this run needs.')


def check_train_loop(cfg: Config) -> None:
    """Check that the train loop, its length and its schedulers all count in epochs, or all in iterations.

    Raises:
        UserError: The loop has the length of the other loop, which MMEngine rejects with a TypeError; or a scheduler
            by epochs stands beside a loop by iterations, which would never step it.
    """
    default = 'EpochBasedTrainLoop' if cfg.train_cfg.get('by_epoch', True) else 'IterBasedTrainLoop'
    kind = type_name(cfg.train_cfg) if 'type' in cfg.train_cfg else default
    foreign = _FOREIGN_LENGTHS.get(kind)
    if foreign is None:
        return
    short = 'For a short run keep the loop: --cfg-options train_cfg.max_epochs=1 train_dataloader.dataset.indices=40'
    write = (
        "To train by iterations, write a config with train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', "
        'max_iters=…, val_interval=…) and by_epoch=False in param_scheduler, default_hooks.checkpoint and log_processor'
    )
    if foreign in cfg.train_cfg:
        if kind == 'EpochBasedTrainLoop':
            remedy = f'Remove train_cfg.{foreign}.'
        elif (cfg.get('log_processor') or {}).get('by_epoch', True):
            remedy = f'{short}. {write}.'
        else:
            remedy = 'This config trains by iterations: --cfg-options train_cfg.max_iters=N train_cfg.val_interval=N'
        raise UserError(f'train_cfg.type={kind} does not accept train_cfg.{foreign}.', remedy)
    length = 'max_epochs' if kind == 'EpochBasedTrainLoop' else 'max_iters'
    if cfg.train_cfg.get(length) is None:
        raise UserError(f'train_cfg has no {length}, the length of the training run.', f'Set train_cfg.{length}')
    known = ['type', 'by_epoch', '_scope_', *inspect.signature(getattr(mmengine.runner, kind)).parameters]
    for name in cfg.train_cfg:
        if name not in known:
            raise UserError(f'train_cfg.type={kind} does not accept train_cfg.{name}.{suggest(name, known)}')
    if kind == 'EpochBasedTrainLoop':
        return
    for index, scheduler in enumerate(as_list(cfg.get('param_scheduler'))):
        by_epoch = scheduler.get('by_epoch', True) and not scheduler.get('convert_to_iter_based')
        if by_epoch and 'Plateau' not in type_name(scheduler):  # those step after each validation
            raise UserError(
                f'param_scheduler.{index} counts in epochs (by_epoch=True), but {kind} in iterations: the scheduler '
                f'would never step.',
                f'Set param_scheduler.{index}.by_epoch=False and its begin and end in iterations.',
            )


def check_pretrained(cfg: Config) -> None:
    """Check that the files of pretrained weights, and of ``load_from``, exist.

    Raises:
        UserError: Names the missing file, its config key and the remedies.
    """
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from, 'Name another with --cfg-options load_from=PATH. ' + DOWNLOAD)
    for key, init_cfg in find_pretrained(cfg.model, 'model'):
        path = init_cfg.get('checkpoint') or ''
        if is_local(path) and not os.path.exists(os.path.expanduser(path)):
            raise UserError(
                f'{key} starts from {path}, which does not exist.',
                f'Name another file with --cfg-options {key}.checkpoint=PATH, or train from scratch with '
                f'--cfg-options {key}=None. {DOWNLOAD}',
            )


def find_pretrained(node: object, key: str) -> Iterator[tuple[str, ConfigDict]]:
    """Yield every ``Pretrained`` initializer inside a model config, with its dotted key."""
    if isinstance(node, dict):
        if type_name(node) in ('Pretrained', 'PretrainedInit') and 'checkpoint' in node:
            yield key, node
            return
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for name, child in children:
        yield from find_pretrained(child, f'{key}.{name}')


def check_checkpoint(path: str, remedy: str = '') -> None:
    """Check that a local checkpoint exists and is one by its first bytes; raises UserError."""
    if not is_local(path):
        return
    file = Path(path).expanduser()
    if not file.exists():
        raise UserError(f'the checkpoint {path} does not exist.', remedy)
    find_format(file, verify=False)
