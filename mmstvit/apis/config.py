"""The config that a command line names."""

import argparse
import difflib
import importlib.util
import os
import traceback
from collections.abc import Mapping
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmstvit.command_line import CONFIG_SUFFIXES
from mmstvit.dependencies import LIBRARIES, find_installed, require_library
from mmstvit.errors import UserError, escape_record


def load_config(args: argparse.Namespace) -> Config:
    """Read the config of a command line and apply the options that train.py and test.py share.

    Args:
        args: Has ``config``, ``work_dir`` and the arguments of :func:`mmstvit.command_line.add_common_arguments`.

    Returns:
        The config, with ``work_dir`` and ``launcher`` set.

    Raises:
        UserError: See :func:`read_config`.
        ImportError: See :func:`read_config`.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    MMLogger.get_current_instance().addFilter(escape_record)  # until the runner has its own
    # Priority: command line, config, name of the config.
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(args.config).stem)
    return cfg


def read_config(file: str, cfg_options: Mapping | None) -> Config:
    """Read a config and override its settings.

    Args:
        file: Path of the config, or its name in an installed package, such as ``'mmstvit::imagenet/NAME.py'``.
        cfg_options: Value of ``--cfg-options``.

    Returns:
        The config.

    Raises:
        UserError: The file does not exist, cannot be read or does not name a supported library.
        ImportError: The library of the config's scope is missing or too old.
    """
    return complete_config(_execute(_find_config(file)), file, cfg_options)


def complete_config(cfg: Config, file: str, cfg_options: Mapping | None) -> Config:
    """Check the library and the model of a config, and override its settings.

    Args:
        cfg: The config.
        file: Its path, for messages.
        cfg_options: Value of ``--cfg-options``.

    Raises:
        UserError: See :func:`read_config`.
        ImportError: See :func:`read_config`.
    """
    scope = cfg.get('default_scope')
    if scope not in LIBRARIES:
        raise UserError(
            f'{file} has default_scope={scope!r}; it must be one of {sorted(LIBRARIES)}, the library that runs it.'
        )
    if 'model' not in cfg:
        raise UserError(
            f'{file} does not have a model.', 'If it is a base of configs (_base_), name one that inherits from it.'
        )
    require_library(scope)
    if scope == 'mmpretrain':
        _complete_dataloaders(cfg)
    if cfg_options is not None:
        try:
            cfg.merge_from_dict(cfg_options)
        except (AssertionError, KeyError, TypeError) as error:
            raise UserError(f'--cfg-options does not fit {file}: {error}') from error
    return cfg


def _find_config(file: str) -> Path:
    """Return the path of a config that is given by its path, or by its name in a package; raises UserError."""
    package, colons, name = file.partition('::')
    path = _package_configs(package) / name if colons else Path(file)
    if not path.exists():
        near = _nearest_config(path)
        raise UserError(f'the config file {file} does not exist.', f'Did you mean {near}?' if near else '')
    if path.suffix not in CONFIG_SUFFIXES or not path.is_file():
        raise UserError(f'{file} is not a config file (expected .py, .yml, .yaml or .json).')
    return path


def _package_configs(package: str) -> Path:
    """Return the folder of the configs of an installed package; raises UserError."""
    packages = ['mmstvit', *LIBRARIES]
    spec = importlib.util.find_spec(package) if package in packages else None
    if spec is None:
        raise UserError(
            f'there are no configs of {package!r}.',
            f'Name a path, or a config of an installed package ({", ".join(packages)}), such as '
            f'mmstvit::imagenet/stvit-nano_scenes.py',
        )
    folder = Path(spec.origin).parent
    installed = folder / '.mim' / 'configs'
    return installed if installed.exists() else folder.parent / 'configs'  # a checkout that is not installed


def _nearest_config(path: Path) -> Path | None:
    """Return a config of a similar name beside ``path`` or under ``configs``, if there is one."""
    candidates = [*path.parent.glob('*.py'), *Path('configs').rglob('*.py')]
    close = difflib.get_close_matches(path.name, [p.name for p in candidates], n=1)
    return next((p for p in candidates if p.name in close), None)


def _execute(path: Path) -> Config:
    """Read a config file and its bases; raises UserError."""
    try:
        return Config.fromfile(str(path))
    except ModuleNotFoundError as error:
        raise UserError(f'{path} inherits from, or imports, a package that is not installed: {error}') from error
    except SyntaxError as error:  # MMEngine parses it without its name
        raise UserError(f'{path}, or a base of it, is not valid: {error.msg} in line {error.lineno}.') from error
    except Exception as error:  # a config is code and may raise anything
        if '/mmstvit/.mim/' in str(error):
            find_installed('model-index.yml')
        place = next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if f.name == '<module>'), None)
        where = f' in line {place.lineno} of {place.filename}' if place else ''
        raise UserError(f'{path} cannot be read: {type(error).__name__}{where}: {error}') from error


def _complete_dataloaders(cfg: Config) -> None:
    """Set what MMPreTrain's own tools set where its configs leave it open."""
    for split in ('train', 'val', 'test'):
        dataloader = cfg.get(f'{split}_dataloader')
        if dataloader is not None:
            dataloader.setdefault('pin_memory', torch.cuda.is_available())
            dataloader.setdefault('persistent_workers', dataloader.get('num_workers', 0) > 0)
            dataloader.setdefault('collate_fn', dict(type='default_collate'))
