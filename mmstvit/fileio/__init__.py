"""Read untrusted checkpoint files without executing code, compare weights with a module, write files atomically."""

from .comparing import OTHER_CONFIG, LoadReport, compare, count_names, load_weights, unwrap
from .configs import check_config, parse_config
from .loading import is_local, open_checkpoint, resumable_checkpoints, safe_loading
from .reading import read_checkpoint
from .weights import Checkpoint, add_dot, check_finite, describe_content
from .writing import check_target, plain_data, plain_meta, serialize, write_atomically

__all__ = [
    'OTHER_CONFIG',
    'Checkpoint',
    'LoadReport',
    'add_dot',
    'check_config',
    'check_finite',
    'check_target',
    'compare',
    'count_names',
    'describe_content',
    'is_local',
    'load_weights',
    'open_checkpoint',
    'parse_config',
    'plain_data',
    'plain_meta',
    'read_checkpoint',
    'resumable_checkpoints',
    'safe_loading',
    'serialize',
    'unwrap',
    'write_atomically',
]
