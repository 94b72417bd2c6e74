"""What the command-line tools share."""

from .checks import UserError, check_checkpoint, check_data, check_match, check_pretrained
from .launch import (
    add_cfg_options,
    add_common_arguments,
    build_model,
    build_runner,
    check_model,
    leave_process_group,
    load_checkpoint,
    load_config,
    read_config,
    user_errors,
)
from .restart import find_checkpoint, make_restartable
from .safe import load_safely

__all__ = [
    'UserError',
    'add_cfg_options',
    'add_common_arguments',
    'build_model',
    'build_runner',
    'check_checkpoint',
    'check_data',
    'check_match',
    'check_model',
    'check_pretrained',
    'find_checkpoint',
    'leave_process_group',
    'load_checkpoint',
    'load_config',
    'load_safely',
    'make_restartable',
    'read_config',
    'user_errors',
]
