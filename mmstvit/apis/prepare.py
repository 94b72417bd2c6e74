"""From a command line to a runner.

The tools serve detection, segmentation and classification alike: the config's ``default_scope`` decides. Everything is
checked before the runner exists, so that a refused command leaves no folder and no file. The order is: the command and
the config; the processes; the rules about config and data, in one process; changes of the config; the model, compared
with every checkpoint; the runner.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from numbers import Number

from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.runner import Runner
from torch import nn

from mmstvit import rules
from mmstvit.deployment import ExportedModel, load_exported
from mmstvit.engine import runner as engine
from mmstvit.errors import UserError
from mmstvit.fileio import compare, load_weights, open_checkpoint

from .config import load_config

Pass = Callable[[Config, argparse.Namespace], None]

# What is checked before the rules read the data, which may take minutes; none of it changes what the rules look at.
# For a training run, for the test of a checkpoint, and for that of an exported file.
CHECKS: dict[str, tuple[Pass, ...]] = {
    'train': (
        engine.check_train_parts,
        engine.check_train_loop,
        engine.apply_amp,
        engine.apply_resume,
        engine.check_pretrained,  # also of a resumed run: MMEngine initializes the weights before it loads others
    ),
    'test': (engine.check_test_parts, engine.check_test_checkpoint, engine.check_draw, engine.check_tta),
    'exported': (engine.check_test_parts,),
}
# Changes of the config, in the order in which they are made.
PASSES: dict[str, tuple[Pass, ...]] = {
    'train': (
        engine.allow_no_workers,
        engine.scale_learning_rate,
        engine.guard_train_data,
        engine.make_restartable,
    ),
    'test': (
        engine.allow_no_workers,
        engine.apply_tta,
        engine.apply_out,
        engine.leave_out_training,
        engine.guard_test_data,
    ),
    'exported': (engine.allow_no_workers, engine.leave_out_training, engine.guard_test_data),
}
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


def prepare(args: argparse.Namespace, split: str, *checks: Pass) -> Runner | None:
    """Check the config of a command line, apply the options and build the runner.

    The model is built once, compared with every checkpoint and given to the runner. Call it inside
    :func:`mmstvit.fileio.safe_loading` and :func:`mmstvit.command_line.user_errors`, with what follows.

    Args:
        args: Has ``config``, ``work_dir``, the arguments of :func:`mmstvit.command_line.add_common_arguments`, and for
            a test ``checkpoint``; other options of train.py and test.py are applied if it has them under their names.
        split: ``'train'`` or ``'test'``.
        checks: The tool's own checks, made before the others.

    Returns:
        The runner, for a test with the weights of the checkpoint; None if the run to resume is finished.

    Raises:
        UserError: The command cannot be carried out. Nothing was written.
        ImportError: The library of the config is missing or too old.
        SystemExit: In all processes but the first, if the rules found faults, which the first one raises.
    """
    args = argparse.Namespace(**{**_DEFAULTS, **vars(args)})
    cfg = load_config(args)
    for check in checks:
        check(cfg, args)
    report = _check_and_change(cfg, args, split)
    model, get_model = engine.build_seeded(cfg)
    if split == 'test':
        source = open_checkpoint(args.checkpoint)
        compare(model, source, complete=True)
        runner = _build_runner(cfg, get_model, report)
        # Not with the runner's own method: it calls the hooks, and EMAHook is not ready before the run begins.
        load_weights(runner.model, source, complete=True)
        if args.show or args.show_dir:
            runner.register_hook(engine.DrawHook(cfg, args.show_dir, args.show, args.wait_time))
        return runner
    check_trainable(model)
    engine.check_weights(cfg, model)
    if cfg.get('resume') and not engine.check_resume(cfg, model):
        return None
    runner = _build_runner(cfg, get_model, report)
    if cfg.get('resume'):
        runner.register_hook(engine.ResumedValuesHook())
    return runner


def prepare_exported(args: argparse.Namespace) -> Runner:
    """Check the config of a command line, and build a runner that tests an exported file with it.

    Args:
        args: Has ``config``, ``file``, ``work_dir``, ``trust_checkpoint`` and the arguments of
            :func:`mmstvit.command_line.add_common_arguments`.

    Raises:
        UserError: The command cannot be carried out, or the file is for another library.
        ImportError: The library of the config is missing or too old.
        SystemExit: See :func:`prepare`.
    """
    args = argparse.Namespace(**{**_DEFAULTS, **vars(args)})
    cfg = load_config(args)
    model = ExportedModel(load_exported(args.file, args.trust_checkpoint))
    if model.metadata.library != cfg.default_scope:
        raise UserError(f'{args.file} is a model of {model.metadata.library}, but the config of {cfg.default_scope}.')
    report = _check_and_change(cfg, args, 'exported')
    return _build_runner(cfg, lambda: model, report)


def _check_and_change(cfg: Config, args: argparse.Namespace, kind: str) -> rules.Report:
    """Make all checks of a config that need no model, join the processes, and make the changes.

    Returns:
        The report of the rules; an empty one in all processes but the first.
    """
    rules.ignore_kinds(cfg, args.ignore)
    for check in CHECKS[kind]:
        check(cfg, args)
    engine.start_processes(cfg, args)
    report = engine.on_main_process(lambda: _ask_rules(cfg, ('train', 'val') if kind == 'train' else ('test',)))
    for change in PASSES[kind]:
        change(cfg, args)
    return report or rules.Report()


def _ask_rules(cfg: Config, splits: Sequence[str]) -> rules.Report:
    """Ask the rules about a config and its data; raises DataError, which lists all faults."""
    rules.check_data(cfg, *splits)
    report = rules.check(cfg, splits, rules.CHEAP)
    rules.refuse(report.faults)
    return report


def _build_runner(cfg: Config, get_model: Callable[[], nn.Module], report: rules.Report) -> Runner:
    """Build the runner, and log what the rules report: a line for each dataset and each warning."""
    runner = engine.build_runner(cfg, get_model)
    report.log(runner.logger)
    return runner


def check_model(cfg: Config, train: bool = False) -> nn.Module:
    """Build the model of a config, which stays as it is, and check that it can be trained if it is to be.

    Raises:
        UserError: See :func:`build_model` and :func:`check_trainable`.
    """
    model = engine.build_model(cfg)
    if train:
        check_trainable(model)
    return model


def check_trainable(model: nn.Module) -> None:
    """Check that no part of a model is in deploy form; raises UserError."""
    for name, module in model.named_modules():
        if getattr(module, 'deploy', False):
            raise UserError(
                f'model.{name}.deploy=True builds {type(module).__name__} in deploy form, which cannot be trained.',
                f'Remove it, or set --cfg-options model.{name}.deploy=False',
            )


@master_only
def print_metrics(metrics: Mapping) -> None:
    """Print the metrics of a test as a table."""
    width = max(map(len, metrics), default=0)
    print()
    for name, value in metrics.items():
        print(f'{name:<{width}}  {value:8.4f}' if isinstance(value, Number) else f'{name:<{width}}  {value}')
