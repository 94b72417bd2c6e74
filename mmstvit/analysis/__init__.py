"""Count parameters, multiply-accumulates, operators and kernel launches of the model of any OpenMMLab config."""

from .complexity import NUM_BOXES, NUM_MASKS, Complexity, Cost, count_complexity, default_shape
from .counter import KINDS, count_macs
from .launches import LaunchCount, count_launches

__all__ = [
    'KINDS',
    'NUM_BOXES',
    'NUM_MASKS',
    'Complexity',
    'Cost',
    'LaunchCount',
    'count_complexity',
    'count_launches',
    'count_macs',
    'default_shape',
]
