"""Build the model of a config once: it is compared with checkpoints, then given to the runner."""

import copy
from collections.abc import Callable

from mmengine.config import Config
from mmengine.dist import sync_random_seed
from mmengine.registry import MODELS, RUNNERS, DefaultScope
from mmengine.runner import FlexibleRunner, Runner, set_random_seed
from torch import nn

from mmstvit.datasets import record_random
from mmstvit.errors import UserError


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
        except (AssertionError, KeyError, TypeError, ValueError) as error:
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
    """
    base = RUNNERS.get(cfg.get('runner_type', 'Runner'))
    if issubclass(base, FlexibleRunner):
        runner = base.from_cfg(cfg)
        runner.model = dict(type=get_model)  # it builds its model when it begins to train
        return runner
    runner_class = type(base.__name__, (base,), {'build_model': lambda self, model: get_model()})
    return runner_class.from_cfg(cfg)
