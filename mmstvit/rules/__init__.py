"""Rules: do a config, its data and its model fit together?

A rule is a function ``rule(facts) -> Iterator[Finding]`` in a module of this room. train.py and test.py ask the rules of
:data:`CHEAP` before the first iteration; verify_dataset.py asks those of :data:`THOROUGH` too. Rule modules import
mmdet, mmseg, mmpretrain and pycocotools inside functions only: a config needs one of them.
"""

from collections.abc import Callable, Iterator

from .facts import DatasetFacts, Facts
from .findings import FAULT, WARNING, Finding, Report

Rule = Callable[[Facts], Iterator[Finding]]

# No decoding, at most a look at a file's name and header. The order is that of the report.
CHEAP: tuple[Rule, ...] = ()
# Decodes every file.
THOROUGH: tuple[Rule, ...] = ()

__all__ = ['CHEAP', 'FAULT', 'THOROUGH', 'WARNING', 'DatasetFacts', 'Facts', 'Finding', 'Report', 'Rule']
