"""What a model costs: parameters and multiply-accumulates."""

from .complexity import NUM_BOXES, NUM_MASKS, Complexity, Cost, measure
from .counter import KINDS, count_macs

__all__ = ['KINDS', 'NUM_BOXES', 'NUM_MASKS', 'Complexity', 'Cost', 'count_macs', 'measure']
