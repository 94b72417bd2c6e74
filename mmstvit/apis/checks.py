"""Checks of a config before anything is built: data, pretrained weights, checkpoints."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from mmengine.config import Config, ConfigDict
from torch import nn

# Folder of a data set -> how to get it.
_DATA_REMEDIES = {
    'data/scenes': 'Make it with: python tools/dataset_converters/scenes.py',
    'data/coco': 'Download COCO 2017 and unpack it there as annotations/, train2017/ and val2017/',
    'data/ade': 'Download ADE20K (SceneParsing) as MMSegmentation describes it',
    'data/imagenet': 'Download ImageNet-1k as MMPreTrain describes it',
}


class UserError(Exception):
    """A command cannot be carried out; the message says why and what to do."""


def is_local(path: str) -> bool:
    """Whether a path is on this machine's file system; URLs and object stores are MMEngine's business."""
    return '://' not in path


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
            for key, reader in _leaves(root_key, node):
                for name, path in _data_paths(reader):
                    if is_local(path) and not os.path.exists(os.path.expanduser(path)):
                        raise UserError(
                            f'{path} does not exist, but {key}.{name} reads it. {_remedy(path)} If it is elsewhere, '
                            f'name it with --cfg-options {key}.{name}=... (and the same path wherever else the config '
                            f'has it: the dataloaders and evaluators of train, val and test).'
                        )


def _remedy(path: str) -> str:
    for folder, remedy in _DATA_REMEDIES.items():
        if path == folder or path.startswith(folder + '/'):
            return f'{remedy}.'
    return ''


def _leaves(key: str, node: Mapping | Sequence | None) -> Iterator[tuple[str, Mapping]]:
    """Datasets inside wrappers such as RepeatDataset and ConcatDataset, or evaluators of a list, with dotted keys."""
    if isinstance(node, (list, tuple)):
        for i, part in enumerate(node):
            yield from _leaves(f'{key}.{i}', part)
    elif node is not None:
        for inner in ('dataset', 'datasets'):
            if node.get(inner):
                yield from _leaves(f'{key}.{inner}', node[inner])
                return
        yield key, node


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
        if is_local(path) and not os.path.isfile(path):
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
    """Refuse a local checkpoint that is not there; raises UserError."""
    if is_local(path) and not os.path.isfile(path):
        raise UserError(f'the checkpoint {path} does not exist.')


def check_match(model: nn.Module, checkpoint: Mapping, path: str) -> None:
    """Refuse a checkpoint that has nothing of the model; MMEngine only logs that.

    Args:
        model: The model, perhaps inside wrappers under ``module``.
        checkpoint: What MMEngine read.
        path: Where from, for the message.

    Raises:
        UserError: Not one key matches.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    own = {_bare(key) for key in model.state_dict()}
    if not own & {_bare(key) for key in weights}:
        raise UserError(
            f"{path} has no weight of this model: its keys are like {next(iter(weights), None)!r}, the model's like "
            f'{min(own)!r}. A published STViT checkpoint is converted with tools/model_converters/stvit_to_mm.py.'
        )


def _bare(key: str) -> str:
    """A key without the prefixes of wrappers; test-time augmentation inside DistributedDataParallel adds two."""
    return re.sub(r'^(module\.)+', '', key)
