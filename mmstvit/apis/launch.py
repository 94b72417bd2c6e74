"""From a command line to a runner: what ``tools/train.py`` and ``tools/test.py`` share.

One pair of tools serves detection, segmentation and classification: the config's ``default_scope`` decides. All checks
happen before the runner exists, so a refused command leaves no folder and no file behind.
"""

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmstvit.dependencies import LIBRARIES, require_library

# Start of a data path -> how to get the data.
_DATA_REMEDIES = {
    'data/scenes': 'Make it with: python tools/dataset_converters/scenes.py',
    'data/coco': 'Download COCO 2017 (mim download mmdet --dataset coco2017 --dest data/coco)',
    'data/ade': 'Download ADE20K (SceneParsing) as MMSegmentation describes it',
    'data/imagenet': 'Download ImageNet-1k as MMPreTrain describes it',
}
# Keys of a dataset config that name files or folders, alone or below `data_root`.
_ANNOTATION_KEYS = ('ann_file',)
_PREFIX_KEYS = ('data_prefix',)


class UserError(Exception):
    """A command cannot be carried out; the message says why and what to do."""


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Print a :class:`UserError`, or an ImportError of the dependency check, as one message and exit with 1."""
    try:
        yield
    except (UserError, ImportError) as error:
        sys.exit(f'error: {error}')


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that OpenMMLab's ``train.py`` and ``test.py`` have in common."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='override settings of the config, as key=value pairs. A list is key="[a,b]" or key=a,b; nested lists and '
        'tuples such as key="[(a,b),(c,d)]" are allowed. The quotation marks are necessary; no white space is '
        'allowed.',
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes --local-rank, torchrun sets LOCAL_RANK.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of a command line and apply the options both tools share.

    Args:
        args: Has ``config``, ``work_dir`` and the arguments of :func:`add_common_arguments`.

    Returns:
        The config, with ``work_dir`` and ``launcher`` set.

    Raises:
        UserError: The file is absent, cannot be read or names no supported library.
        ImportError: The library of the config's scope is missing or too old.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    path = Path(args.config)
    if not path.is_file():
        nearby = path.parent if path.parent.is_dir() else Path('configs')
        known = {str(p): p.name for p in nearby.rglob('*.py')} if nearby.is_dir() else {}
        close = difflib.get_close_matches(path.name, known.values(), n=1)
        hint = next((f' Did you mean {p}?' for p, name in known.items() if name in close), '')
        raise UserError(f'the config file {args.config} does not exist.{hint}')
    try:
        cfg = Config.fromfile(str(path))
    except ModuleNotFoundError as error:
        raise UserError(f'{path} inherits from a package that is not installed: {error}') from error
    scope = cfg.get('default_scope')
    if scope not in LIBRARIES:
        raise UserError(
            f'{path} has default_scope={scope!r}; it must be one of {sorted(LIBRARIES)}, the library that runs it.'
        )
    require_library(scope)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    cfg.launcher = args.launcher
    # Priority: command line, config, name of the config.
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / path.stem)
    if args.launcher != 'none':
        _choose_backend(cfg)
    return cfg


def _choose_backend(cfg: Config) -> None:
    """NCCL needs GPUs; processes on CPU talk through gloo."""
    dist_cfg = cfg.setdefault('env_cfg', ConfigDict()).setdefault('dist_cfg', ConfigDict(backend='nccl'))
    if dist_cfg.get('backend') == 'nccl' and not torch.cuda.is_available():
        dist_cfg.backend = 'gloo'
        print_log('no GPU: distributed backend gloo instead of nccl', logger='current')


def check_data(cfg: Config, loaders: Sequence[str]) -> None:
    """Refuse a config whose data set is not there, before anything is built.

    Args:
        cfg: The config.
        loaders: Keys of the dataloaders to check, such as ``'train_dataloader'``.

    Raises:
        UserError: Names the missing path, the dataloader and the command that makes or fetches the data.
    """
    for loader in loaders:
        for dataset in _leaf_datasets((cfg.get(loader) or {}).get('dataset')):
            for path in _data_paths(dataset):
                if '://' not in path and not os.path.exists(path):
                    remedy = next((r for start, r in _DATA_REMEDIES.items() if path.startswith(start)), 'Get the data')
                    raise UserError(
                        f'{path} does not exist, but {loader} reads it. {remedy}, or point the config to where it is '
                        f'with --cfg-options {loader}.dataset.data_root=...'
                    )


def check_checkpoint(path: str) -> None:
    """Refuse a local checkpoint that is not there; URLs are left to MMEngine. Raises UserError."""
    if '://' not in path and not os.path.isfile(path):
        raise UserError(f'the checkpoint {path} does not exist.')


def check_pretrained(cfg: Config) -> None:
    """Refuse a config whose pretrained weights are not there, before anything is built.

    Raises:
        UserError: Names the missing file and the remedies.
    """
    for key, init_cfg in _init_cfgs(cfg.model, 'model'):
        path = init_cfg.get('checkpoint') or ''
        if init_cfg.get('type') == 'Pretrained' and '://' not in path and not os.path.isfile(path):
            raise UserError(
                f'{key} starts from {path}, which does not exist. Convert the published weights (python '
                f'tools/model_converters/stvit_to_mm.py SRC {path}), name another file with --cfg-options '
                f'{key}.checkpoint=PATH, or train from scratch with --cfg-options {key}=None'
            )


def _init_cfgs(node: object, key: str) -> Iterator[tuple[str, ConfigDict]]:
    """Every ``init_cfg`` inside a model config, with its dotted key."""
    if isinstance(node, dict):
        for name, child in node.items():
            if name == 'init_cfg' and isinstance(child, dict):
                yield f'{key}.{name}', child
            else:
                yield from _init_cfgs(child, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for i, child in enumerate(node):
            yield from _init_cfgs(child, f'{key}.{i}')


def _leaf_datasets(dataset: ConfigDict | Sequence | None) -> Iterator[ConfigDict]:
    """The datasets inside wrappers such as RepeatDataset and ConcatDataset."""
    if isinstance(dataset, (list, tuple)):
        for part in dataset:
            yield from _leaf_datasets(part)
    elif dataset is not None:
        inner = dataset.get('dataset') or dataset.get('datasets')
        if inner is None:
            yield dataset
        else:
            yield from _leaf_datasets(inner)


def _data_paths(dataset: ConfigDict) -> Iterator[str]:
    """Files and folders that a dataset config names; the libraries join them with ``data_root`` in the same way."""
    root = dataset.get('data_root') or ''
    if root:
        yield root
    for key in _ANNOTATION_KEYS:
        if dataset.get(key):
            yield os.path.join(root, dataset[key])
    for key in _PREFIX_KEYS:
        prefixes = dataset.get(key) or {}
        for prefix in prefixes.values() if isinstance(prefixes, dict) else [prefixes]:
            if prefix:
                yield os.path.join(root, prefix)


def build_runner(cfg: Config) -> Runner:
    """The config's own runner type, or MMEngine's default runner."""
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
