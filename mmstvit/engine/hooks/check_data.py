"""The rules of ``train.py`` and ``test.py`` for the libraries' own tools."""

from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mmstvit import rules
from mmstvit.registry import HOOKS

from ..runner.processes import on_main_process


@HOOKS.register_module()
class CheckDataHook(Hook):
    """Ask before the first iteration whether config, data and model fit, as ``tools/train.py`` of mmstvit does.

    Faults end the run with one error, which lists all of them with their remedies; warnings are logged. Kinds in
    ``rules=dict(ignore=['KIND', …])`` of the config are ignored. ``tools/train.py`` and ``tools/test.py`` of mmstvit
    do not need the hook.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner: Runner) -> None:
        """Ask the rules, in the first process.

        Raises:
            DataError: There are faults.
        """
        # Loops that do not run are configs (tried: MMEngine 0.10.12, which has no public name for them).
        loops = {split: getattr(runner, f'_{split}_loop') for split in ('train', 'val', 'test')}
        splits = [split for split, loop in loops.items() if isinstance(loop, BaseLoop)]
        report = on_main_process(lambda: self._ask(runner, splits))
        if report is not None:
            report.log(runner.logger)

    @staticmethod
    def _ask(runner: Runner, splits: Sequence[str]) -> rules.Report:
        report = rules.check(runner.cfg, splits)
        rules.refuse(report.faults)
        return report
