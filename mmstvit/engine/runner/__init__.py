"""Prepare a run of any OpenMMLab config: checks, passes over the config, the model, the runner."""

from .data import guard_data, guard_test_data, guard_train_data
from .draw import DrawHook, check_draw
from .factory import build_model, build_runner, build_seeded
from .initial_weights import check_weights
from .options import (
    allow_no_workers,
    apply_amp,
    apply_out,
    apply_tta,
    check_tta,
    leave_out_training,
    scale_learning_rate,
)
from .processes import leave_process_group, on_main_process, start_processes
from .requirements import (
    check_checkpoint,
    check_pretrained,
    check_test_checkpoint,
    check_test_parts,
    check_train_loop,
    check_train_parts,
)
from .resume import ResumedValuesHook, apply_resume, check_resume, find_checkpoint, make_restartable

__all__ = [
    'DrawHook',
    'ResumedValuesHook',
    'allow_no_workers',
    'apply_amp',
    'apply_out',
    'apply_resume',
    'apply_tta',
    'build_model',
    'build_runner',
    'build_seeded',
    'check_checkpoint',
    'check_draw',
    'check_pretrained',
    'check_resume',
    'check_test_checkpoint',
    'check_test_parts',
    'check_train_loop',
    'check_train_parts',
    'check_tta',
    'check_weights',
    'find_checkpoint',
    'guard_data',
    'guard_test_data',
    'guard_train_data',
    'leave_out_training',
    'leave_process_group',
    'make_restartable',
    'on_main_process',
    'scale_learning_rate',
    'start_processes',
]
