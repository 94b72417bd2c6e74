"""From a command line to a runner: what ``tools/train.py`` and ``tools/test.py`` share.

One pair of tools serves detection, segmentation and classification: the config's ``default_scope`` decides. Everything
that the config alone can tell is checked before the runner exists, so a refused command leaves no folder and no file.
"""

import argparse
import contextlib
import copy
import difflib
import gc
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.logging import print_log
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import Runner
from torch import distributed, nn

from mmstvit.dependencies import LIBRARIES, require_library
from mmstvit.engine.runner import type_name
from mmstvit.errors import UserError
from mmstvit.fileio import Source, load_weights, read_weights
from mmstvit.models.deploy import Deployable


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Print what is no fault of the program as one message and exit with 1.

    That is a :class:`UserError`, a CheckpointError, a DataError, a DivergedError, and an ImportError of the dependency
    check.
    """
    try:
        yield
    except (UserError, ImportError) as error:
        sys.exit(f'error: {error}')


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add OpenMMLab's ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=_KeyValues,
        help='override settings of the config, as key=value pairs. A list is key="[a,b]" or key=a,b; nested lists and '
        'tuples such as key="[(a,b),(c,d)]" are allowed. The quotation marks are necessary; no white space is '
        'allowed.',
    )


class _KeyValues(DictAction):
    """MMEngine's action, which ends in an error of its own where a value is missing."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Sequence[str],
        option_string: str | None = None,
    ) -> None:
        for pair in values:
            if '=' not in pair:
                parser.error(f'{option_string} needs key=value, but got {pair!r}')
        super().__call__(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that OpenMMLab's ``train.py`` and ``test.py`` have in common."""
    add_cfg_options(parser)
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torch.distributed.launch passes --local-rank, torchrun sets LOCAL_RANK.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Add ``--trust-checkpoint``."""
    parser.add_argument(
        '--trust-checkpoint',
        action='store_true',
        help='load checkpoints even if that executes code that they hold: only from people whom you trust',
    )


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of a command line and apply the options both tools share.

    Args:
        args: Has ``config``, ``work_dir`` and the arguments of :func:`add_common_arguments`.

    Returns:
        The config, with ``work_dir`` and ``launcher`` set.

    Raises:
        UserError: As :func:`read_config`.
        ImportError: Likewise.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    # Priority: command line, config, name of the config.
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def read_config(file: str, cfg_options: Mapping | None) -> Config:
    """Read a config and override its settings.

    Args:
        file: Path of the config.
        cfg_options: What ``--cfg-options`` gave, if anything.

    Returns:
        The config.

    Raises:
        UserError: The file is absent, cannot be read or names no supported library.
        ImportError: The library of the config's scope is missing or too old.
    """
    path = Path(file)
    if not path.exists():
        raise UserError(f'the config file {file} does not exist.{_nearest_config(path)}')
    cfg = _execute(path)
    scope = cfg.get('default_scope')
    if scope not in LIBRARIES:
        raise UserError(
            f'{path} has default_scope={scope!r}; it must be one of {sorted(LIBRARIES)}, the library that runs it.'
        )
    if 'model' not in cfg:
        raise UserError(f'{path} has no model. Is it a base of configs (_base_), not one itself?')
    require_library(scope)
    if scope == 'mmpretrain':
        _complete_dataloaders(cfg)
    if cfg_options is not None:
        try:
            cfg.merge_from_dict(cfg_options)
        except (AssertionError, KeyError, TypeError) as error:
            raise UserError(f'--cfg-options does not fit {path}: {error}') from error
    return cfg


def _execute(path: Path) -> Config:
    """The config of a file and its bases, or a UserError."""
    if path.suffix not in ('.py', '.yml', '.yaml', '.json') or not path.is_file():
        raise UserError(f'{path} is no config: that is a .py file (or .yml, .yaml, .json).')
    try:
        return Config.fromfile(str(path))
    except ModuleNotFoundError as error:
        raise UserError(f'{path} inherits from, or imports, a package that is not installed: {error}') from error
    except SyntaxError as error:  # MMEngine parses it without its name
        raise UserError(f'{path}, or a base of it, is not valid: {error.msg} in line {error.lineno}.') from error
    except Exception as error:  # a config is code, and raises whatever it likes
        place = next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if f.name == '<module>'), None)
        where = f' in line {place.lineno} of {place.filename}' if place else ''
        raise UserError(f'{path} cannot be read: {type(error).__name__}{where}: {error}') from error


def _complete_dataloaders(cfg: Config) -> None:
    """What MMPreTrain's own tools add to the dataloaders that its configs leave unsaid."""
    for split in ('train', 'val', 'test'):
        dataloader = cfg.get(f'{split}_dataloader')
        if dataloader is not None:
            dataloader.setdefault('pin_memory', torch.cuda.is_available())
            dataloader.setdefault('persistent_workers', dataloader.get('num_workers', 0) > 0)
            dataloader.setdefault('collate_fn', dict(type='default_collate'))


def _nearest_config(path: Path) -> str:
    """' Did you mean …?' if a config of a similar name is beside ``path`` or under ``configs``, else nothing."""
    candidates = [*path.parent.glob('*.py'), *Path('configs').rglob('*.py')]
    close = difflib.get_close_matches(path.name, [p.name for p in candidates], n=1)
    return next((f' Did you mean {p}?' for p in candidates if p.name in close), '')


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config, which stays as it is; no weights are read.

    Raises:
        UserError: The model cannot be built; the message is that of the model.
    """
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        try:
            return MODELS.build(copy.deepcopy(cfg.model))  # models write into their configs
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise UserError(f'the model of the config cannot be built: {error}') from error


def check_model(cfg: Config, train: bool = False) -> nn.Module:
    """Build the model once, to be thrown away, so that a bad option is refused before anything is written.

    Args:
        cfg: The config.
        train: Whether the model is to be trained.

    Returns:
        The model, to compare checkpoints with.

    Raises:
        UserError: As :func:`build_model`; or what shall be trained is in the inference form.
    """
    model = build_model(cfg)
    for name, module in model.named_modules():
        if train and isinstance(module, Deployable) and module.deploy:
            raise UserError(
                f'model.{name}.deploy=True builds the inference form of {type(module).__name__}, which cannot be '
                f'trained. Remove it, or set --cfg-options model.{name}.deploy=False'
            )
    return model


def build_runner(cfg: Config, train: bool = False) -> Runner:
    """The config's own runner type, or MMEngine's default runner; processes without a GPU talk through gloo.

    Args:
        cfg: The config.
        train: Whether the runner trains. Else it needs no strategy: the model is whole in every process.

    Raises:
        UserError: The config or the launcher asks for what this machine, or one process, does not have.
    """
    if not train:
        cfg.load_from, cfg.resume = None, False  # else the run would load that over what load_checkpoint has loaded
        if cfg.pop('strategy', None) is not None:
            cfg.pop('runner_type', None)
    launcher = cfg.get('launcher', 'none')
    if cfg.get('strategy') is not None:
        _check_strategy(cfg.strategy, launcher)
    if launcher != 'none' and not torch.cuda.is_available():
        _prepare_cpu_processes(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def _check_strategy(strategy: ConfigDict, launcher: str) -> None:
    """Refuse what one process cannot do, and checkpoints that are folders: only files are written whole or not at all.

    Raises:
        UserError: See above.
    """
    kind = type_name(strategy)
    if kind not in ('SingleDeviceStrategy', 'DDPStrategy', 'FSDPStrategy'):
        raise UserError(
            f'strategy.type must be SingleDeviceStrategy, DDPStrategy or mmstvit.FSDPStrategy, but got {kind}, whose '
            f'checkpoints are folders.'
        )
    if kind != 'FSDPStrategy':
        return
    if launcher == 'none':
        raise UserError('the config shards the model over processes: train it with tools/dist_train.sh CONFIG GPUS.')
    state_dict = strategy.get('state_dict_cfg', 'local')
    if state_dict != 'full':
        raise UserError(
            f"strategy.state_dict_cfg must be 'full', but got {state_dict!r}: then a checkpoint is one file, which any "
            f'number of processes can load. Set --cfg-options strategy.state_dict_cfg=full'
        )


def _prepare_cpu_processes(cfg: Config) -> None:
    """MMEngine's set-up of several processes assumes CUDA devices and nccl; do here what it does, without them."""
    if cfg.launcher != 'pytorch':
        raise UserError(f'--launcher {cfg.launcher} needs GPUs; on CPU use tools/dist_train.sh (--launcher pytorch).')
    distributed.init_process_group('gloo')
    wrapper = cfg.get('model_wrapper_cfg')
    if wrapper is None:  # what MMEngine then takes
        unused = cfg.get('find_unused_parameters', False)
        wrapper = ConfigDict(broadcast_buffers=False, find_unused_parameters=unused)
    cfg.model_wrapper_cfg = ConfigDict({'type': 'MMDistributedDataParallel', **wrapper, 'device_ids': None})
    print_log('no GPU: processes talk through gloo', logger='current')
    if cfg.get('sync_bn'):
        cfg.sync_bn = None
        print_log('no GPU: BatchNorm is not synchronised (PyTorch does that on GPUs alone)', logger='current')


def load_checkpoint(runner: Runner, checkpoint: str | Source) -> None:
    """Load weights into the runner's model, and log what was loaded and what was not.

    Args:
        runner: The runner.
        checkpoint: File or address, or the weights that were read from it.

    Raises:
        CheckpointError: The file cannot be used, lacks a weight that the model learns, or has those of the other of the
            two forms.
    """
    # Not the runner's own method: it tells the hooks, and EMAHook is not ready for that before the run begins.
    source = checkpoint if isinstance(checkpoint, Source) else read_weights(checkpoint)
    load_weights(runner.model, source, complete=True)


def leave_process_group() -> None:
    """Part from the other processes when all are done and the runner is gone.

    Else the threads behind the process group live on while the interpreter goes, which then aborts now and then.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.barrier()
        gc.collect()  # the runner refers to itself; its model and optimizer hold the group
        distributed.destroy_process_group()
