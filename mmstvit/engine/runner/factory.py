"""Build the model of a config once: it is compared with checkpoints, then given to the runner."""

import copy
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import is_main_process, master_only, sync_random_seed
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import FlexibleRunner, Runner, set_random_seed
from torch import nn

from mmstvit.datasets import record_random
from mmstvit.errors import CheckpointError, UserError, escape_record
from mmstvit.fileio import write_atomically

from .screen import shorten_screen


def build_model(cfg: Config) -> nn.Module:
    """Build the model of a config, which stays as it is; no weights are read.

    Raises:
        UserError: The model cannot be built; the message is that of the model.
    """
    model = copy.deepcopy(cfg.model)  # models write into their configs
    if cfg.get('data_preprocessor') is not None:
        model.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        try:
            return MODELS.build(model)
        except Exception as error:  # a config may give a model anything
            raise UserError(f'the model of the config cannot be built: {error}') from error


def build_seeded(cfg: Config) -> tuple[nn.Module, Callable[[], nn.Module]]:
    """Build the model after seeding as MMEngine's runners do; a seed that the config leaves open is drawn and set.

    Returns:
        The model, and a function that returns it too, but first puts the random number generators where building it
        left them: whatever happens in between, the weights that MMEngine initializes next depend on the seed only.
    """
    randomness = dict(cfg.get('randomness') or {})
    if randomness.get('seed') is None:
        randomness['seed'] = sync_random_seed()
    cfg.randomness = randomness
    set_random_seed(**randomness)
    model = build_model(cfg)
    reset = record_random()

    def get_model() -> nn.Module:
        reset()
        return model

    return model, get_model


def build_runner(cfg: Config, get_model: Callable[[], nn.Module]) -> Runner:
    """Build the runner of a config around a model that exists.

    Args:
        cfg: The config; ``runner_type`` names its runner, MMEngine's ``Runner`` by default.
        get_model: Returns the model; called where the runner would build it.

    Raises:
        UserError: A text in the config has two opening braces, or the work dir cannot be written.
    """
    _check_text(cfg, 'the config')
    base = RUNNERS.get(cfg.get('runner_type', 'Runner'))
    methods = {'dump_config': _dump_config, 'load_or_resume': _load_or_resume, 'train': _train}
    is_flexible = issubclass(base, FlexibleRunner)
    if not is_flexible:
        methods['build_model'] = lambda self, model: get_model()
        methods |= dict(build_logger=_build_logger, save_checkpoint=_save_checkpoint)
    runner = type(base.__name__, (base,), methods).from_cfg(cfg)
    if is_flexible:
        runner.model = dict(type=get_model)  # it builds its model when it begins to train
    runner.logger.addFilter(escape_record)
    return runner


def _build_logger(runner: Runner, *args: object, **kwargs: object) -> MMLogger:
    logger = super(type(runner), runner).build_logger(*args, **kwargs)
    shorten_screen(logger)
    return logger


@master_only
def _dump_config(runner: Runner) -> None:
    """Write the config into the work dir; a link of its name is replaced, not followed as MMEngine does."""
    name = Path(runner.cfg.filename or f'{runner.timestamp}.py').name
    write_atomically(runner.cfg.dump().encode(), Path(runner.work_dir, name))


def _load_or_resume(runner: Runner) -> None:
    """As the method of the runner, with one error for whatever a damaged or foreign checkpoint leads to."""
    try:
        super(type(runner), runner).load_or_resume()
    except UserError:
        raise
    except Exception as error:
        problem = f'the run cannot start from {runner._load_from}: {type(error).__name__}: {error}'
        raise CheckpointError(problem, 'Use another checkpoint.') from error


def _save_checkpoint(runner: Runner, *args: object, save_optimizer: bool = True, **options: object) -> None:
    """As the method of the runner, which asks for the state of the optimizer in the main process only.

    ZeRO collects the parts of all processes for it, and waits for them.
    """
    if save_optimizer and not is_main_process():
        runner.optim_wrapper.state_dict()
    super(type(runner), runner).save_checkpoint(*args, save_optimizer=save_optimizer, **options)


def _train(runner: Runner) -> nn.Module:
    """As the method of the runner, with one error for what follows if the folder of the run is removed."""
    try:
        return super(type(runner), runner).train()
    except (OSError, UserError) as error:
        removed = [folder for folder in (runner.work_dir, runner.log_dir) if not os.path.isdir(folder)]
        if not removed or not isinstance(error.__cause__ or error, OSError):
            raise
        raise UserError(
            f'{removed[0]} was removed or renamed while the run wrote into it: nothing more can be saved.',
            'Put it back and continue with --resume, or start the run again with another --work-dir.',
        ) from error


def _check_text(node: object, key: str) -> None:
    """Refuse texts that MMEngine would replace, or execute, when the copy of the config in the work dir is read."""
    if isinstance(node, (Mapping, Config)):
        for name, value in node.items():
            _check_text(str(name), f'a key of {key}')
            _check_text(value, f'{key}.{name}'.removeprefix('the config.'))
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            _check_text(value, f'{key}.{index}')
    elif isinstance(node, str) and '{{' in node:
        raise UserError(
            f'{key} is {node!r}: MMEngine replaces what stands in two braces when it reads the saved config again.',
            'Rename the file or the class, or leave out a brace.',
        )
