"""Bad inputs: what a user may get wrong, and what damaged or harmful files may hold; tried by test_bad_inputs.py."""

from . import checkpoints, command_lines, configs, data
from .case import CASES, SECTIONS, Case

CASES.sort(key=lambda case: SECTIONS.index(case.section))

__all__ = ['CASES', 'SECTIONS', 'Case', 'checkpoints', 'command_lines', 'configs', 'data']
