"""What the command-line tools share."""

from mmstvit.engine.runner import (
    check_checkpoint,
    check_data,
    check_parts,
    check_pretrained,
    check_weights,
    find_checkpoint,
    guard_data,
    make_restartable,
    read_matching,
)
from mmstvit.errors import UserError

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
    'guard_data',
    'leave_process_group',
    'load_checkpoint',
    'load_config',
    'make_restartable',
    'read_config',
    'read_matching',
    'user_errors',
]
