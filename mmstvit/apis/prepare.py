"""From a command line to a runner.

The tools serve detection, segmentation and classification alike: the config's ``default_scope`` decides. Everything is
checked before the runner exists, so that a refused command leaves no folder and no file.
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
from mmstvit.fileio import compare, load_weights, read_weights

from .config import load_config


def check_train_data(cfg: Config, _args: argparse.Namespace) -> None:
    """Check that the data for training and validation exist; raises UserError."""
    rules.check_data(cfg, 'train', 'val')


def check_test_data(cfg: Config, _args: argparse.Namespace) -> None:
    """Check that the data for testing exist; raises UserError."""
    rules.check_data(cfg, 'test')


Pass = Callable[[Config, argparse.Namespace], None]

# Checks of a config and changes to it, in the order in which they are made: for a training run, for the test of a
# checkpoint, and for that of an exported file.
PASSES: dict[str, tuple[Pass, ...]] = {
    'train': (
        engine.check_train_parts,
        engine.allow_no_workers,
        engine.check_train_loop,
        engine.apply_amp,
        engine.apply_resume,
        engine.check_pretrained,  # also of a resumed run: MMEngine initializes the weights before it loads others
        check_train_data,
        engine.start_processes,
        engine.scale_learning_rate,
        engine.guard_train_data,
        engine.make_restartable,
    ),
    'test': (
        engine.check_test_parts,
        engine.allow_no_workers,
        engine.check_test_checkpoint,
        engine.check_draw,
        engine.apply_tta,
        engine.apply_out,
        engine.leave_out_training,
        check_test_data,
        engine.start_processes,
        engine.guard_test_data,
    ),
    'exported': (
        engine.check_test_parts,
        engine.allow_no_workers,
        engine.leave_out_training,
        check_test_data,
        engine.start_processes,
        engine.guard_test_data,
    ),
}
# Options that a tool need not have.
_DEFAULTS = dict(
    amp=False, auto_scale_lr=False, out=None, resume=None, show=False, show_dir=None, tta=False, wait_time=2.0
)


def prepare(args: argparse.Namespace, split: str, *passes: Pass) -> Runner | None:
    """Check the config of a command line, apply the options and build the runner.

    The model is built once, compared with every checkpoint and given to the runner. Call it inside
    :func:`mmstvit.fileio.safe_loading` and :func:`user_errors`, with what follows.

    Args:
        args: Has ``config``, ``work_dir``, the arguments of :func:`add_common_arguments`, and for a test
            ``checkpoint``; other options of train.py and test.py are applied if it has them under their names.
        split: ``'train'`` or ``'test'``.
        passes: The tool's own checks and changes, made before the others.

    Returns:
        The runner, for a test with the weights of the checkpoint; None if the run to resume is finished.

    Raises:
        UserError: The command cannot be carried out. Nothing was written.
        ImportError: The library of the config is missing or too old.
    """
    args = argparse.Namespace(**{**_DEFAULTS, **vars(args)})
    cfg = load_config(args)
    keys = rules.find_keys(cfg, ('test',) if split == 'test' else ('train', 'val'))
    for apply in (*passes, *PASSES[split]):
        apply(cfg, args)
    model, hand_over = engine.build_seeded(cfg)
    if split == 'test':
        source = read_weights(args.checkpoint)
        compare(model, source, complete=True)
        runner = _build_runner(cfg, keys, hand_over)
        # Not with the runner's own method: it calls the hooks, and EMAHook is not ready before the run begins.
        load_weights(runner.model, source, complete=True)
        if args.show or args.show_dir:
            runner.register_hook(engine.DrawHook(cfg, args.show_dir, args.show, args.wait_time))
        return runner
    check_trainable(model)
    engine.check_weights(cfg, model)
    if cfg.get('resume') and not engine.check_resume(cfg, model):
        return None
    runner = _build_runner(cfg, keys, hand_over)
    if cfg.get('resume'):
        runner.register_hook(engine.ResumedValuesHook())
    return runner


def prepare_exported(args: argparse.Namespace) -> Runner:
    """Check the config of a command line, and build a runner that tests an exported file with it.

    Args:
        args: Has ``config``, ``file``, ``work_dir``, ``trust_checkpoint`` and the arguments of
            :func:`add_common_arguments`.

    Raises:
        UserError: The command cannot be carried out, or the file is for another library.
        ImportError: The library of the config is missing or too old.
    """
    cfg = load_config(args)
    model = ExportedModel(load_exported(args.file, args.trust_checkpoint))
    if model.metadata.library != cfg.default_scope:
        raise UserError(f'{args.file} is a model of {model.metadata.library}, but the config of {cfg.default_scope}.')
    keys = rules.find_keys(cfg, ('test',))
    for apply in PASSES['exported']:
        apply(cfg, args)
    return _build_runner(cfg, keys, lambda: model)


def _build_runner(cfg: Config, keys: Mapping[str, Sequence[str]], hand_over: Callable[[], nn.Module]) -> Runner:
    """Ask the rules about the config and its data, then build the runner with the same datasets.

    The log has a line for each dataset and each warning.

    Raises:
        DataError: The config and its data have faults; it lists all.
    """
    facts = rules.gather(cfg, keys)
    report = rules.ask(facts, rules.CHEAP)
    rules.refuse(report.faults)
    runner = engine.build_runner(cfg, hand_over, rules.hand_over(facts))
    for line in report.used:
        runner.logger.info(line)
    for warning in report.warnings:
        runner.logger.warning(f'{warning.line} {warning.remedy}')
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
