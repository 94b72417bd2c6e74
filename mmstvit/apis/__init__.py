"""What the command-line tools share."""

from .launch import (
    UserError,
    add_common_arguments,
    build_runner,
    check_checkpoint,
    check_data,
    check_pretrained,
    load_config,
    user_errors,
)

__all__ = [
    'UserError',
    'add_common_arguments',
    'build_runner',
    'check_checkpoint',
    'check_data',
    'check_pretrained',
    'load_config',
    'user_errors',
]
