"""What a model costs: parameters and multiply-accumulates, time and memory."""

from .complexity import NUM_BOXES, NUM_MASKS, Complexity, Cost, measure
from .counter import KINDS, count_macs
from .published import PublishedSTViT

__all__ = ['KINDS', 'NUM_BOXES', 'NUM_MASKS', 'Complexity', 'Cost', 'PublishedSTViT', 'count_macs', 'measure']
