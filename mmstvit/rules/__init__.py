"""Rules: do a config, its data and its model fit together?

A rule is a function ``rule(facts) -> Iterator[Finding]`` in a module of this room; :data:`RULES` has all of them.
train.py and test.py ask them before they build the model; verify_dataset.py reads and decodes every file first, and
the rules say more. Rule modules import mmdet, mmseg, mmpretrain and pycocotools inside functions only: a config needs
one of them.
"""

from .facts import DatasetFacts, Facts
from .files import check_data
from .findings import Finding, refuse
from .kinds import FAULT, KINDS, WARNING, check_kinds
from .report import RULES, Report, Rule, check, ignore_kinds

# fmt: off
__all__ = [
    'FAULT', 'KINDS', 'RULES', 'WARNING', 'DatasetFacts', 'Facts', 'Finding', 'Report', 'Rule', 'check', 'check_data',
    'check_kinds', 'ignore_kinds', 'refuse',
]
# fmt: on
