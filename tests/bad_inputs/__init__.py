"""Bad inputs: commands that users may get wrong, and damaged or harmful files; tried by test_bad_inputs.py."""

from . import checkpoints, command_lines, configs
from .case import CASES, Case

__all__ = ['CASES', 'Case', 'checkpoints', 'command_lines', 'configs']
