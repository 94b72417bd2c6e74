"""Read untrusted checkpoint files without executing code, compare weights with a module, write files atomically."""

from .comparing import OTHER_CONFIG, LoadReport, compare, count_names, load_weights, unwrap
from .configs import check_config, parse_config
from .loading import add_dot, is_local, read_content, read_weights, safe_loading
from .reading import read_checkpoint
from .weights import Source, check_finite, describe_content, find_weights, resumable_checkpoints
from .writing import check_target, plain_data, plain_meta, serialize, write_atomically

__all__ = [
    'OTHER_CONFIG',
    'LoadReport',
    'Source',
    'add_dot',
    'check_config',
    'check_finite',
    'check_target',
    'compare',
    'count_names',
    'describe_content',
    'find_weights',
    'is_local',
    'load_weights',
    'parse_config',
    'plain_data',
    'plain_meta',
    'read_checkpoint',
    'read_content',
    'read_weights',
    'resumable_checkpoints',
    'safe_loading',
    'serialize',
    'unwrap',
    'write_atomically',
]
