"""Functions behind the command-line tools."""

from mmstvit.engine.runner.factory import build_model
from mmstvit.engine.runner.initial_weights import check_weights
from mmstvit.engine.runner.processes import leave_process_group
from mmstvit.engine.runner.requirements import check_pretrained
from mmstvit.errors import UserError
from mmstvit.rules import check_data

from .config import load_config, read_config
from .predict import predict
from .prepare import check_trainable, prepare

__all__ = [
    'UserError',
    'build_model',
    'check_data',
    'check_pretrained',
    'check_trainable',
    'check_weights',
    'leave_process_group',
    'load_config',
    'predict',
    'prepare',
    'read_config',
]
