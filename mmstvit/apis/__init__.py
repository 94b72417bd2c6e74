"""What the command-line tools share."""

from .checks import UserError, check_checkpoint, check_data, check_parts, check_pretrained, check_weights, read_matching
from .launch import (
    add_cfg_options,
    add_common_arguments,
    add_trust,
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

__all__ = [
    'UserError',
    'add_cfg_options',
    'add_common_arguments',
    'add_trust',
    'build_model',
    'build_runner',
    'check_checkpoint',
    'check_data',
    'check_model',
    'check_parts',
    'check_pretrained',
    'check_weights',
    'find_checkpoint',
    'leave_process_group',
    'load_checkpoint',
    'load_config',
    'make_restartable',
    'read_config',
    'read_matching',
    'user_errors',
]
