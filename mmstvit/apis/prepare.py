"""From a command line to a runner.

The tools serve detection, segmentation and classification alike: the config's ``default_scope`` decides. Everything is
checked before the runner exists, so that a refused command leaves no folder and no file. The order is: the command and
the config; the processes; the rules about config and data, in one process; changes of the config; the model, compared
with every checkpoint; the runner.
"""

import argparse
from collections.abc import Callable, Mapping
from numbers import Number

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.runner import Runner
from torch import nn

from mmstvit import rules
from mmstvit.deployment import ExportedFile, ExportedModel
from mmstvit.engine.hooks import StopHook
from mmstvit.engine.runner import (
    command_options,
    data,
    draw,
    factory,
    initial_weights,
    processes,
    requirements,
    resume,
    screen,
)
from mmstvit.errors import UserError, one_line
from mmstvit.fileio import compare, load_weights, open_checkpoint

from .config import load_config

# Options that a tool need not have.
_DEFAULTS = dict(
    amp=False,
    auto_scale_lr=False,
    ignore=None,
    out=None,
    resume=None,
    show=False,
    show_dir=None,
    tta=False,
    wait_time=2.0,
)


def prepare(args: argparse.Namespace, split: str) -> Runner | None:
    """Check the config of a command line, apply the options and build the runner.

    The model is built once, compared with every checkpoint and given to the runner. Call it inside
    :func:`mmstvit.fileio.safe_loading` and :func:`mmstvit.command_line.user_errors`, with what follows.

    Args:
        args: Has ``config``, ``work_dir``, the arguments of :func:`mmstvit.command_line.add_common_arguments`, and for
            a test ``checkpoint``; other options of train.py and test.py are applied if it has them under their names.
        split: ``'train'`` or ``'test'``.

    Returns:
        The runner, for a test with the weights of the checkpoint; None if the run to resume is finished.

    Raises:
        UserError: The command cannot be carried out. Nothing was written.
        ImportError: The library of the config is missing or too old.
        SystemExit: In all processes but the first, if the rules found faults, which the first one raises.
    """
    args = argparse.Namespace(**{**_DEFAULTS, **vars(args)})
    cfg = load_config(args)
    return _prepare_training(cfg, args) if split == 'train' else _prepare_test(cfg, args)


def _prepare_training(cfg: Config, args: argparse.Namespace) -> Runner | None:
    requirements.check_train_parts(cfg)
    requirements.check_train_loop(cfg)
    command_options.apply_amp(cfg, args)
    processes.start_processes(cfg)
    processes.on_main_process(lambda: processes.lock_work_dir(cfg.work_dir, try_only=True))
    resume.apply_resume(cfg, args)
    requirements.check_pretrained(cfg)  # also of a resumed run: MMEngine initializes the weights before it loads others
    report = _ask_rules(cfg, args, 'train', 'val')
    command_options.allow_no_workers(cfg)
    command_options.scale_learning_rate(cfg, args)
    data.guard_data(cfg, 'train', 'val')
    resume.make_restartable(cfg)
    model, get_model = factory.build_seeded(cfg)
    check_trainable(model)
    initial_weights.check_weights(cfg, model)
    if cfg.get('resume') and not resume.check_resume(cfg, model):
        return None
    lock = processes.on_main_process(lambda: processes.lock_work_dir(cfg.work_dir))
    runner = _build_runner(cfg, get_model, report)
    runner.register_hook(screen.SummaryHook())
    runner.lock = lock  # until the run ends
    runner.register_hook(StopHook())
    if cfg.get('resume'):
        runner.register_hook(resume.ResumedValuesHook())
    return runner


def _prepare_test(cfg: Config, args: argparse.Namespace) -> Runner:
    requirements.check_test_parts(cfg)
    requirements.check_checkpoint(args.checkpoint)
    draw.check_draw(cfg, args)
    command_options.check_tta(cfg, args)
    processes.start_processes(cfg)
    report = _ask_rules(cfg, args, 'test')
    command_options.allow_no_workers(cfg)
    command_options.apply_tta(cfg, args)
    command_options.apply_out(cfg, args)
    command_options.leave_out_training(cfg)
    data.guard_data(cfg, 'test')
    model, get_model = factory.build_seeded(cfg)
    source = open_checkpoint(args.checkpoint)
    compare(model, source, complete=True)
    runner = _build_runner(cfg, get_model, report)
    # Not with the runner's own method: it calls the hooks, and EMAHook is not ready before the run begins.
    load_weights(runner.model, source, complete=True)
    if args.show or args.show_dir:
        runner.register_hook(draw.DrawHook(cfg, args.show_dir, args.show, args.wait_time))
    return runner


def prepare_exported(args: argparse.Namespace) -> Runner:
    """Check the config of a command line, and build a runner that tests an exported file with it.

    Args:
        args: Has ``config``, ``file``, ``work_dir`` and the arguments of
            :func:`mmstvit.command_line.add_common_arguments`.

    Raises:
        UserError: The command cannot be carried out, or the file is for another library.
        ImportError: The library of the config is missing or too old.
        SystemExit: See :func:`prepare`.
    """
    args = argparse.Namespace(**{**_DEFAULTS, **vars(args)})
    cfg = load_config(args)
    model = ExportedModel(ExportedFile(args.file))
    if model.metadata.library != cfg.default_scope:
        raise UserError(f'{args.file} is a model of {model.metadata.library}, but the config of {cfg.default_scope}.')
    requirements.check_test_parts(cfg)
    processes.start_processes(cfg)
    report = _ask_rules(cfg, args, 'test')
    command_options.allow_no_workers(cfg)
    command_options.leave_out_training(cfg)
    data.guard_data(cfg, 'test')
    return _build_runner(cfg, lambda: model, report)


def _ask_rules(cfg: Config, args: argparse.Namespace, *splits: str) -> rules.Report:
    """Ask the rules about a config and its data, in one process; this may take minutes.

    Returns:
        The report; an empty one in all processes but the first.

    Raises:
        DataError: There are faults; it lists all of them.
        SystemExit: See :func:`prepare`.
    """

    def ask() -> rules.Report:
        rules.check_data(cfg, *splits)
        report = rules.check(cfg, splits)
        rules.refuse(report.faults)
        return report

    rules.ignore_kinds(cfg, args.ignore)
    return processes.on_main_process(ask) or rules.Report()


def _build_runner(cfg: Config, get_model: Callable[[], nn.Module], report: rules.Report) -> Runner:
    """Build the runner, and log what the rules report: a line for each dataset and each warning."""
    runner = factory.build_runner(cfg, get_model)
    report.log(runner.logger)
    return runner


def check_trainable(model: nn.Module) -> nn.Module:
    """Check that no part of a model is in deploy form, and return it; raises UserError."""
    for name, module in model.named_modules():
        if getattr(module, 'deploy', False):
            raise UserError(
                f'model.{name}.deploy=True builds {type(module).__name__} in deploy form, which cannot be trained.',
                f'Remove it, or set --cfg-options model.{name}.deploy=False',
            )
    return model


@master_only
def print_metrics(metrics: Mapping) -> None:
    """Print the metrics of a test as a table."""
    width = max(map(len, metrics), default=0)
    print()
    for name, value in metrics.items():
        print(one_line(f'{name:<{width}}  {value:8.4f}' if isinstance(value, Number) else f'{name:<{width}}  {value}'))
