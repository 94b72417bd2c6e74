"""Checks of a config before anything is built: data, pretrained weights, checkpoints."""

import os
from collections.abc import Iterator, Mapping

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.runner import find_latest_checkpoint
from torch import nn

from mmstvit.datasets.wrapper import leaf_configs
from mmstvit.errors import CheckpointError, UserError
from mmstvit.fileio import Source, compare, find_weights, is_local, read_content, read_weights

# Folder of a data set -> how to get it.
DATA_REMEDIES = {
    'data/scenes': 'Make it with: python tools/dataset_converters/scenes.py',
    'data/coco': 'Download COCO 2017 and unpack it there as annotations/, train2017/ and val2017/',
    'data/ade': 'Download ADE20K (SceneParsing) as MMSegmentation describes it',
    'data/imagenet': 'Download ImageNet-1k as MMPreTrain describes it',
}


def type_name(node: Mapping) -> str:
    """Name of the class that a config builds, without its scope; ``type`` may be the class itself."""
    kind = node.get('type')
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def check_data(cfg: Config, *splits: str) -> None:
    """Refuse a config whose data set is not there.

    Args:
        cfg: The config.
        splits: ``'train'``, ``'val'``, ``'test'``: whose dataloaders and evaluators to check.

    Raises:
        UserError: Names the missing path, the config key that reads it and the command that makes or fetches the data.
    """
    for split in splits:
        keys = [(f'{split}_dataloader.dataset', (cfg.get(f'{split}_dataloader') or {}).get('dataset'))]
        keys.append((f'{split}_evaluator', cfg.get(f'{split}_evaluator')))
        for root_key, node in keys:
            for key, reader in leaf_configs(root_key, node):
                for name, path in _data_paths(reader):
                    if is_local(path) and not os.path.exists(os.path.expanduser(path)):
                        raise UserError(
                            f'{path} does not exist, but {key}.{name} reads it.{_remedy(path)} If it is elsewhere, '
                            f'name it with --cfg-options {key}.{name}=... (and the same path wherever else the config '
                            f'has it: the dataloaders and evaluators of train, val and test).'
                        )


def _remedy(path: str) -> str:
    for folder, remedy in DATA_REMEDIES.items():
        if path == folder or path.startswith(folder + '/'):
            return f' {remedy}.'
    return ''


def _data_paths(reader: Mapping) -> Iterator[tuple[str, str]]:
    """Files and folders that a dataset or evaluator reads, with their keys; joined as the libraries join them."""
    backend = reader.get('backend_args') or {}
    if backend.get('backend', 'local') != 'local':
        return
    root = reader.get('data_root') or ''
    if root:
        yield 'data_root', root
    prefixes = reader.get('data_prefix')
    prefixes = list(prefixes.values()) if isinstance(prefixes, Mapping) else prefixes
    files = [('ann_file', file) for file in _as_list(reader.get('ann_file'))]
    folders = [('data_prefix', folder) for part in _as_list(prefixes) for folder in _as_list(part)]
    # MMPreTrain's ImageNet reads the folder of the split when no prefix is given.
    if not any(folder for _, folder in folders) and type_name(reader) == 'ImageNet':
        folders.append(('split', reader.get('split')))
    for name, path in [*files, *folders]:
        if path:
            yield name, os.path.join(root, path)


def _as_list(value: object) -> list:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def check_pretrained(cfg: Config) -> None:
    """Refuse a config whose pretrained weights, or the checkpoint of ``load_from``, are not there.

    Raises:
        UserError: Names the missing file and the remedies.
    """
    if cfg.get('load_from'):
        check_checkpoint(cfg.load_from)
    for key, init_cfg in _pretrained(cfg.model, 'model'):
        path = init_cfg.get('checkpoint') or ''
        if is_local(path) and not os.path.exists(path):
            raise UserError(
                f'{key} starts from {path}, which does not exist. Convert the published weights (python '
                f'tools/model_converters/stvit_to_mm.py SRC {path}), name another file with --cfg-options '
                f'{key}.checkpoint=PATH, or train from scratch with --cfg-options {key}=None'
            )


def _pretrained(node: object, key: str) -> Iterator[tuple[str, ConfigDict]]:
    """Every ``Pretrained`` initialiser inside a model config, with its dotted key."""
    if isinstance(node, dict):
        if type_name(node) == 'Pretrained' and 'checkpoint' in node:
            yield key, node
            return
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for name, child in children:
        yield from _pretrained(child, f'{key}.{name}')


def check_checkpoint(path: str) -> None:
    """Refuse a local checkpoint that is not there; raises UserError. What it is, its reader says."""
    if is_local(path) and not os.path.exists(path):
        raise UserError(f'the checkpoint {path} does not exist.')


def check_parts(cfg: Config, *keys: str) -> None:
    """Refuse a config that lacks a part without which the run cannot begin; raises UserError."""
    for key in keys:
        if cfg.get(key) is None:
            raise UserError(f'the config has no {key}, which this run needs.')


def check_weights(cfg: Config, model: nn.Module) -> None:
    """Refuse a training whose pretrained weights, or the checkpoint of ``load_from``, do not fit the model.

    Args:
        cfg: The config.
        model: What it builds; no weight is changed.

    Raises:
        CheckpointError: A file cannot be used: it is damaged, would execute code, has nothing of the part of the
            model that it is for, or less than an STViT needs; or a training cannot be resumed from it.
    """
    for part in model.modules():
        configs = getattr(part, 'init_cfg', None) or []
        for _, init_cfg in _pretrained(configs, 'init_cfg'):
            path = init_cfg['checkpoint']
            if path and _is_read_now(path):
                # A part that knows foreign files reads its own weights out of them.
                read = getattr(part, 'read_pretrained', read_weights)
                compare(part, read(path, init_cfg.get('prefix'), keep=True))
    path = cfg.get('load_from')
    if cfg.get('resume'):
        path = path or find_latest_checkpoint(cfg.work_dir)
        if path and _is_read_now(path):
            _check_resume(model, path)
    elif path and _is_read_now(path):
        report = compare(model, read_weights(path, keep=True))
        if os.environ.get('LOCAL_RANK', '0') == '0':  # what MMEngine logs later names every key
            print_log(report.table(), logger='current')


def _check_resume(model: nn.Module, path: str) -> None:
    """Refuse a checkpoint from which a training of the model cannot go on; raises CheckpointError."""
    content = read_content(path, keep=True)
    absent = [key for key in ('optimizer', 'meta', 'message_hub') if key not in content]
    if absent:
        raise CheckpointError(
            f'{path} has weights, but no {" and no ".join(absent)}: no training can go on from it. Start a new one '
            f'from its weights: --cfg-options load_from={path}'
        )
    report = compare(model, Source(path, find_weights(content)[0]))
    if report.missing or report.unexpected or report.mismatched:
        raise CheckpointError(
            f'{path} is of a training with another model:\n{report.table()}\nResume it with the config of that '
            f'training (in its work dir), or start a new one from its weights: --cfg-options load_from={path}'
        )


def read_matching(model: nn.Module, path: str) -> Source | str:
    """The weights of a checkpoint, compared with the model; or the path itself, to be read when the run has begun.

    Raises:
        CheckpointError: The file cannot be used, or does not have all that the model learns.
    """
    if not _is_read_now(path):
        return path
    source = read_weights(path)
    compare(model, source, complete=True)
    return source


def _is_read_now(path: str) -> bool:
    """Whether a checkpoint is read before the run: of several processes on a machine, one fetches what is elsewhere."""
    return is_local(path) or os.environ.get('LOCAL_RANK', '0') == '0'
