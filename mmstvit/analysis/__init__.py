"""Count parameters and multiply-accumulates of the model of any OpenMMLab config."""

from .complexity import NUM_BOXES, NUM_MASKS, Complexity, Cost, count_complexity, default_shape
from .counter import KINDS, count_macs

__all__ = ['KINDS', 'NUM_BOXES', 'NUM_MASKS', 'Complexity', 'Cost', 'count_complexity', 'count_macs', 'default_shape']
